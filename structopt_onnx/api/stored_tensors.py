"""The tensors that a model stores: what they take, and what they could take."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.scope import Scope, scopes
from structopt_onnx.model.sparse import MARK
from structopt_onnx.passes.sparsity.constant_tree import decode_trees
from structopt_onnx.rewriting.encodings import Nonzeros, encodings

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    density
        Share of elements with a bit set, which encodings store: -0.0 is zero and has one. None for
        strings and empty tensors.
    encoding
        The encoding with zeros left out that takes the fewest bytes, such as ``bitmask``, however
        small the tensor; None where dense does, and for parts of an encoding.
    saved
        Bytes of the dense form that this encoding saves.
    stored
        How the file holds it: ``dense``, ``initializer`` where it is sparse, or ``part`` of a
        bitmask or of gaps.
    repeats
        Name of an earlier tensor of the same type, shape and bytes; None where there is none.
    """

    name: str
    dtype: str
    shape: str
    bytes: int
    zeros: float | None
    scope: str
    density: float | None = None
    encoding: str | None = None
    saved: int = 0
    stored: str = "dense"
    repeats: str | None = None


@dataclass(frozen=True)
class _Held:
    name: str
    tensor: ir.TensorProtocol
    value: ir.Value
    scope: Scope

    @property
    def is_sparse(self) -> bool:
        return MARK in self.tensor.meta or MARK in self.value.meta

    @property
    def form(self) -> str:
        return "initializer" if self.is_sparse else "dense"


class StoredTensors:
    """What a model stores.

    Parameters
    ----------
    model
        Read only.
    """

    def __init__(self, model: ir.Model) -> None:
        facts = Facts(model)
        self._held = list(_stored(model))
        self._trees = [tree for scope in facts.scopes for tree in decode_trees(scope, facts)]
        self._parts = {leaf for tree in self._trees for leaf in tree.leaves}
        self._repeats = _repeats(self._held)

    def rows(self) -> tuple[TensorRow, ...]:
        """Return a row per tensor, the largest first."""
        rows = (self._row(held) for held in self._held)
        return tuple(sorted(rows, key=lambda row: (-row.bytes, row.scope, row.name)))

    def _row(self, held: _Held) -> TensorRow:
        tensor = held.tensor
        shape = f"[{', '.join(str(size) for size in tensor.shape.dims)}]"
        text = tensor.dtype == ir.DataType.STRING
        dtype = "string" if text else str(tensor.dtype.numpy())
        repeats = self._repeats.get(held.value)
        is_part = held.value in self._parts
        row = TensorRow(held.name, dtype, shape, _nbytes(tensor), None, held.scope.path)
        row = replace(row, stored="part" if is_part else held.form)
        nonzeros = Nonzeros.of(tensor)
        if nonzeros is None:
            return replace(row, repeats=repeats)
        zeros = 1.0 - int(np.count_nonzero(tensor.numpy())) / tensor.size
        row = replace(row, zeros=zeros, density=nonzeros.density, repeats=repeats)
        best = next(iter(encodings(tensor)), None)
        if best is None or is_part:
            return row
        return replace(row, encoding=best.label, saved=tensor.nbytes - best.nbytes)

    def notes(self) -> Iterator[str]:
        """Yield what else is worth knowing, a line each."""
        sparse = [held.tensor for held in self._held if held.is_sparse]
        if sparse:
            dense = sum(tensor.nbytes for tensor in sparse)
            yield f"tensors stored sparse: {len(sparse)}, which take {dense} bytes when dense"
        if self._trees:
            names = ", ".join(tree.root.outputs[0].name or "" for tree in self._trees)
            yield f"tensors decoded from constants: {len(self._trees)} ({names})"
        outside = [h.tensor for h in self._held if isinstance(h.tensor, ir.ExternalTensor)]
        if outside:
            files = sorted({str(tensor.location) for tensor in outside})
            size = sum(tensor.nbytes for tensor in outside)
            yield f"tensors in external data: {len(outside)}, {size} bytes, in {', '.join(files)}"
        if self._repeats:
            size = sum(h.tensor.nbytes for h in self._held if h.value in self._repeats)
            yield f"tensors that repeat the bytes of another: {len(self._repeats)}, {size} bytes"


def stored_sparse(model: ir.Model) -> int:
    """Count the tensors that a file holds sparse, or is to hold so."""
    return sum(held.is_sparse for held in _stored(model))


def _stored(model: ir.Model) -> Iterator[_Held]:
    for scope in scopes(model):
        for name, value in scope.graph.initializers.items():
            if value.const_value is not None:
                yield _Held(name, value.const_value, value, scope)
        for node in scope.graph:
            if node.domain != "" or node.op_type != "Constant":
                continue
            attribute = node.attributes.get("value")
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
                output = node.outputs[0]
                yield _Held(output.name or "", attribute.as_tensor(), output, scope)


def _nbytes(tensor: ir.TensorProtocol) -> int:
    if tensor.dtype == ir.DataType.STRING:
        return sum(len(text) for text in tensor.numpy().reshape(-1).tolist())
    return tensor.nbytes


def _repeats(held: list[_Held]) -> dict[ir.Value, str]:
    """Name the earlier equal tensor of each that has one; only what is alike is read."""
    alike: dict[tuple[str, str, int], list[_Held]] = {}
    for entry in held:
        tensor = entry.tensor
        if tensor.dtype != ir.DataType.STRING and tensor.size > 1:
            key = (tensor.dtype.name, str(tensor.shape), tensor.nbytes)
            alike.setdefault(key, []).append(entry)
    found: dict[ir.Value, str] = {}
    for group in alike.values():
        first: dict[bytes, str] = {}
        for entry in group if len(group) > 1 else ():
            digest = hashlib.sha256(entry.tensor.tobytes()).digest()
            if digest in first:
                found[entry.value] = first[digest]
            first.setdefault(digest, entry.name)
    return found
