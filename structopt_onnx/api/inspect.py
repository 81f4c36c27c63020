"""`inspect`: what a model is made of and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.api.stored_tensors import StoredTensors, TensorRow
from structopt_onnx.errors import ModelError
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.operators import operator_counts
from structopt_onnx.passes.sparsity.analysis import dead_channels
from structopt_onnx.rewriting.cost import Cost, graph_cost
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.shapes import observed_shapes
from structopt_onnx.validation.interface import DeclaredPort, Interface

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.model.loading import Source

__all__ = ["Inspection", "TensorRow", "inspect"]


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
    stored_tensors = StoredTensors(model)
    declared = Interface.of(model)
    if declared.overridable:
        names = ", ".join(port.name for port in declared.overridable)
        notes.append(f"inputs with a default, which may be overridden: {names}")
    notes += stored_tensors.notes()
    return Inspection(
        source=opened.name,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        ir_version=model.ir_version,
        opsets=dict(model.opset_imports),
        inputs=tuple(_port(port) for port in declared.inputs),
        outputs=tuple(_port(port) for port in declared.outputs),
        cost=replace(cost, seconds=TARGETS["cpu"].seconds(cost)),
        file_bytes=len(stored) if isinstance(stored, bytes) else model_file_bytes(stored),
        operators=operator_counts(model),
        tensors=stored_tensors.rows(),
        metadata=tuple(model.metadata_props),
        functions=tuple(f"{f.domain}::{f.name}" for f in model.functions.values()),
        notes=(*notes, *_dead(model)),
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


def _dead(model: ir.Model) -> Iterator[str]:
    """Tell the channels that change nothing, by the weights that make them."""
    found = dead_channels(Facts(model))
    if found:
        listed = ", ".join(f"{number} of {value.name}" for value, number in found.items())
        yield f"channels that remove-dead-channels would take out: {listed}"


def _port(port: DeclaredPort) -> tuple[str, str, str]:
    if port.shape is None:
        return port.name, port.type, "?"
    sizes = ", ".join("?" if size is None else str(size) for size in port.shape)
    return port.name, port.type, f"[{sizes}]"
