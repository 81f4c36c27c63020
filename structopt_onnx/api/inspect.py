"""`inspect`: what a model is made of and what it costs."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.errors import ModelError
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.scope import Scope, scopes
from structopt_onnx.model.sparse import MARK
from structopt_onnx.rewriting.cost import Cost, graph_cost
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.shapes import observed_shapes
from structopt_onnx.validation.interface import DeclaredPort, Interface

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from structopt_onnx.model.loading import Source

Held = tuple[str, ir.TensorProtocol, ir.Value, Scope]
"""A stored tensor: its name, itself, the value that holds it, and where."""


@dataclass(frozen=True)
class TensorRow:
    """A tensor that a model stores.

    Parameters
    ----------
    name
        Name of the initializer, or of the output of the Constant node.
    dtype, shape
        Such as ``float32`` and ``[256, 64]``.
    bytes
        Bytes of its dense form.
    zeros
        Share of elements that are zero; None for strings and empty tensors.
    scope
        Where it is: ``graph``, or the path of a subgraph or function.
    """

    name: str
    dtype: str
    shape: str
    bytes: int
    zeros: float | None
    scope: str


@dataclass(frozen=True)
class Inspection:
    """What a model is made of.

    Parameters
    ----------
    source
        Display name.
    producer
        Name and version of the exporter; empty when not stated.
    ir_version, opsets
        Format version, and operator set version by domain.
    inputs, outputs
        Name, type and shape of each, such as ``("x", "tensor(float)", "[batch, 64]")``.
    cost
        Static cost; see `structopt_onnx.rewriting.cost.graph_cost`.
    file_bytes
        The model with its external data.
    operators
        Nodes per operator, most frequent first, subgraphs and functions included.
    tensors
        Stored tensors, the largest first.
    metadata
        Keys of the metadata.
    functions
        Local functions, as ``domain::name``.
    notes
        What else is worth knowing, a line each.
    """

    source: str
    producer: str
    ir_version: int
    opsets: Mapping[str, int]
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    cost: Cost
    file_bytes: int
    operators: Mapping[str, int]
    tensors: tuple[TensorRow, ...]
    metadata: tuple[str, ...]
    functions: tuple[str, ...]
    notes: tuple[str, ...]


def inspect(
    source: Source,
    *,
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    seed: int = 0,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> Inspection:
    """Look into a model.

    It is run once on one sample, so that operations on dynamic dimensions can be counted; a model
    that can't be run is counted by its declared shapes, with a note.

    Parameters
    ----------
    source
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
    data
        Inputs; the first sample is run. None makes one up.
    seed
        Of made-up inputs.
    threads, libraries
        Of the session: threads inside one operator, shared libraries with custom operators.

    Raises
    ------
    ModelError
        When the model can't be read.
    DataError
        When `data` does not fit it.
    """
    opened = open_source(source)
    model, stored = opened.model, opened.stored
    shapes, notes = _shapes(opened, data, seed, threads, libraries)
    cost = graph_cost(model, Facts(model, shapes=shapes))
    held = list(_stored_tensors(model))
    declared = Interface.of(model)
    if declared.overridable:
        names = ", ".join(port.name for port in declared.overridable)
        notes.append(f"inputs with a default, which may be overridden: {names}")
    notes += _storage_notes(held)
    rows = (_row(*entry) for entry in held)
    return Inspection(
        source=opened.name,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        ir_version=model.ir_version,
        opsets=dict(model.opset_imports),
        inputs=tuple(_port(port) for port in declared.inputs),
        outputs=tuple(_port(port) for port in declared.outputs),
        cost=replace(cost, seconds=TARGETS["cpu"].seconds(cost)),
        file_bytes=len(stored) if isinstance(stored, bytes) else model_file_bytes(stored),
        operators=_operators(model),
        tensors=tuple(sorted(rows, key=lambda row: (-row.bytes, row.scope, row.name))),
        metadata=tuple(model.metadata_props),
        functions=tuple(f"{f.domain}::{f.name}" for f in model.functions.values()),
        notes=tuple(notes),
    )


def _shapes(
    opened: Opened,
    data: Any | None,  # noqa: ANN401 - as in `inspect`
    seed: int,
    threads: int,
    libraries: Sequence[Path],
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return the shapes of one run, or none and a note that says why."""
    try:
        samples = samples_for(opened, data, seed=seed, threads=threads, libraries=libraries)
        return observed_shapes(opened.model, samples[0], libraries=libraries), []
    except ModelError as error:
        if data is not None:
            raise
        return {}, [f"not run, so MACs are counted by declared shapes: {error}"]


def _stored_tensors(model: ir.Model) -> Iterator[Held]:
    for scope in scopes(model):
        for name, value in scope.graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value, value, scope
        for node in scope.graph:
            if node.domain != "" or node.op_type != "Constant":
                continue
            attribute = node.attributes.get("value")
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
                output = node.outputs[0]
                yield output.name or "", attribute.as_tensor(), output, scope


def _row(name: str, tensor: ir.TensorProtocol, _: ir.Value, scope: Scope) -> TensorRow:
    zeros = None
    if tensor.dtype != ir.DataType.STRING and tensor.size:
        zeros = 1.0 - int(np.count_nonzero(tensor.numpy())) / tensor.size
    shape = f"[{', '.join(str(size) for size in tensor.shape.dims)}]"
    dtype = "string" if tensor.dtype == ir.DataType.STRING else str(tensor.dtype.numpy())
    return TensorRow(name, dtype, shape, _nbytes(tensor), zeros, scope.path)


def _nbytes(tensor: ir.TensorProtocol) -> int:
    if tensor.dtype == ir.DataType.STRING:
        return sum(len(text) for text in tensor.numpy().reshape(-1).tolist())
    return tensor.nbytes


def _port(port: DeclaredPort) -> tuple[str, str, str]:
    if port.shape is None:
        return port.name, port.type, "?"
    sizes = ", ".join("?" if size is None else str(size) for size in port.shape)
    return port.name, port.type, f"[{sizes}]"


def _operators(model: ir.Model) -> dict[str, int]:
    counts = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for scope in scopes(model)
        for node in scope.graph
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _storage_notes(held: Sequence[Held]) -> Iterator[str]:
    sparse = [tensor for _, tensor, value, _ in held if MARK in tensor.meta or MARK in value.meta]
    if sparse:
        dense = sum(tensor.nbytes for tensor in sparse)
        yield f"tensors stored sparse: {len(sparse)}, which take {dense} bytes when dense"
    outside = [t for _, t, _, _ in held if isinstance(t, ir.ExternalTensor)]
    if outside:
        files = sorted({str(tensor.location) for tensor in outside})
        size = sum(tensor.nbytes for tensor in outside)
        yield f"tensors in external data: {len(outside)}, {size} bytes, in {', '.join(files)}"
    repeated, size = _duplicates([tensor for _, tensor, _, _ in held])
    if repeated:
        yield f"tensors that repeat the bytes of another: {repeated}, {size} bytes"


def _duplicates(tensors: Sequence[ir.TensorProtocol]) -> tuple[int, int]:
    """Count tensors equal to an earlier one, and their bytes; only what is alike is read."""
    alike: dict[tuple[str, str, int], list[ir.TensorProtocol]] = {}
    for tensor in tensors:
        if tensor.dtype != ir.DataType.STRING and tensor.size > 1:
            key = (tensor.dtype.name, str(tensor.shape), tensor.nbytes)
            alike.setdefault(key, []).append(tensor)
    count = size = 0
    for group in alike.values():
        if len(group) > 1:
            distinct = {hashlib.sha256(tensor.tobytes()).digest() for tensor in group}
            count += len(group) - len(distinct)
            size += (len(group) - len(distinct)) * group[0].nbytes
    return count, size
