"""share-initializers: equal weights are stored once.

What it does
    Initializers with the same dtype, shape and bytes, in the main graph and in subgraphs,
    become one, kept in the innermost scope that all readers see. A weight that is another's
    transpose, or has the same elements in another shape, is dropped as well when every reader
    can absorb the difference: Gemm by transA or transB, Transpose by its perm, Reshape by
    ignoring the shape it is given.

Why
    Exporters copy a weight per step of an unrolled loop, per branch and per tied layer.

Leaves alone
    Initializers that the caller can override, that are graph outputs, that carry quantization
    annotations, that lie inside functions, which can't hold what branches share, or that are text.

Exactness
    ROUNDING: copies are the same bits, but a flipped transA or transB may take another kernel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import (
    AttributeValue,
    Edit,
    Fresh,
    NewNode,
    reading_replacements,
)
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.scope import Scope
from structopt_onnx.rewriting.passes import Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.model.facts import Facts

Dims = tuple[int, ...]
Turn = Literal["transposed", "reshaped"]
Held = tuple[Scope, ir.Value]
_MATRIX = 2
_ANNOTATION = "quant_parameter_tensor_names"


@dataclass(frozen=True)
class ShareInitializers(Pass):
    """Options of share-initializers.

    Parameters
    ----------
    absorb
        Also share transposed and reshaped copies whose readers can absorb the difference.
    """

    name: ClassVar[str] = "share-initializers"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    refusals: ClassVar[dict[str, str]] = {
        "initializer-is-input": "the caller can override the copy",
        "initializer-is-output": "the copy is a graph output",
        "quantization-annotation": "the copy carries a quantization annotation",
        "reader-can-not-absorb": "a reader of a transposed or reshaped copy needs it as it is",
    }

    absorb: bool = True

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield a patch per set of equal initializers; starts from the main graph only."""
        if not scope.is_main:
            return
        annotated = _annotated(facts)
        alike: dict[tuple[ir.DataType, int, bytes], list[Held]] = {}
        for inner in facts.scopes:
            for value in inner.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.dtype == ir.DataType.STRING or inner.in_function:
                    continue
                if value.uses() and tensor.size:
                    key = (tensor.dtype, tensor.size, _ends(tensor))
                    alike.setdefault(key, []).append((inner, value))
        for same_size in alike.values():
            movable: list[Held] = []
            for held in same_size if len(same_size) > 1 else ():
                refusal = _fixed(held[1], annotated)
                if refusal is None:
                    movable.append(held)
                elif any(_same(held[1], other) for _, other in same_size if other is not held[1]):
                    yield refusal
            yield from self._among(movable, facts)

    def _among(self, movable: Sequence[Held], facts: Facts) -> Iterator[Patch | Refusal]:
        groups: dict[tuple[Dims, bytes], list[Held]] = {}
        for scope, value in movable:
            groups.setdefault((_dims(value), _digest(value)), []).append((scope, value))
        for equal in groups.values():
            if len(equal) > 1:
                yield _share(equal)
        firsts = [equal[0] for equal in groups.values()]
        for position, copy in enumerate(firsts if self.absorb else ()):
            for original in firsts[:position]:
                found = [
                    _absorb(original[1], copy, turn, facts) for turn in _turns(original[1], copy[1])
                ]
                if found:
                    yield next((p for p in found if isinstance(p, Patch)), found[0])
                    break


def _annotated(facts: Facts) -> frozenset[str]:
    """Names that quantization annotations mention: annotated values and their parameters."""
    names: set[str] = set()
    for scope in facts.scopes:
        values = [*scope.graph.inputs, *scope.graph.initializers.values()]
        values += [output for node in scope.graph for output in node.outputs]
        for value in values:
            if _ANNOTATION in value.meta:
                names.update({value.name or "", *value.meta[_ANNOTATION].values()})
    return frozenset(names)


def _fixed(value: ir.Value, annotated: frozenset[str]) -> Refusal | None:
    name = value.name or ""
    if value.is_graph_input():
        return Refusal("initializer-is-input", "it is a graph input as well", name)
    if value.is_graph_output():
        return Refusal("initializer-is-output", "it is a graph output as well", name)
    if name in annotated:
        return Refusal("quantization-annotation", "an annotation names it", name)
    return None


def _dims(value: ir.Value) -> Dims:
    return tuple(int(d) for d in _tensor(value).shape.numpy())


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:  # only initializers with data are looked at
        raise ValueError(value.name)
    return value.const_value


def _ends(tensor: ir.TensorProtocol) -> bytes:
    """Return the first and last element, which copies share, turned or not: cheap to tell apart."""
    flat = tensor.numpy().reshape(-1)
    return flat[:1].tobytes() + flat[-1:].tobytes()


def _digest(value: ir.Value) -> bytes:
    return hashlib.sha256(_tensor(value).tobytes()).digest()


def _same(one: ir.Value, other: ir.Value) -> bool:
    return _dims(one) == _dims(other) and _tensor(one).tobytes() == _tensor(other).tobytes()


def _share(equal: Sequence[Held]) -> Patch:
    """Keep one of several equal initializers, in the innermost scope around all of them."""
    around = [_outwards(scope) for scope, _ in equal]
    common = next(s for s in around[0] if all(s in chain for chain in around))
    kept = next((value for scope, value in equal if scope == common), None)
    name = equal[0][1].name or "shared"
    survivor: ir.Value | Fresh = kept or Fresh(name, _tensor(equal[0][1]))
    moves: dict[Scope, dict[ir.Value, ir.Value | Fresh]] = {common: {}}
    for scope, value in equal:
        if value is not kept:
            moves.setdefault(scope, {})[value] = survivor
    edits = {
        scope: Edit(
            initializers=(survivor,) if scope == common and isinstance(survivor, Fresh) else (),
            rewire=rewire,
        )
        for scope, rewire in moves.items()
    }
    anchor = next(iter(equal[0][1].uses())).node
    return Patch(f"{len(equal)} initializers equal to {name}", anchor, edits)


def _outwards(scope: Scope | None) -> list[Scope]:
    return [] if scope is None else [scope, *_outwards(scope.parent)]


def _turns(original: ir.Value, copy: ir.Value) -> Iterator[Turn]:
    dims = _dims(original)
    if len(dims) == _MATRIX and dims[::-1] == _dims(copy):
        turned = _tensor(original).numpy().T
        if turned.tobytes() == _tensor(copy).numpy().tobytes():
            yield "transposed"
    if dims != _dims(copy) and _digest(original) == _digest(copy):
        yield "reshaped"


def _absorb(original: ir.Value, held: Held, turn: Turn, facts: Facts) -> Patch | Refusal:
    scope, copy = held
    reader = _turned_reader if turn == "transposed" else _reshaped_reader
    removed, added, rewire = [], [], {}
    order = {node: position for position, node in enumerate(scope.graph)}
    for node, index in sorted(copy.uses(), key=lambda use: order.get(use.node, -1)):
        attributes = reader(node, index, facts)
        if attributes is None or node.graph is not scope.graph or not scope.sees(original.graph):
            detail = f"{node.op_type} '{node.name}' reads it"
            return Refusal("reader-can-not-absorb", detail, copy.name or "")
        result = Fresh(node.outputs[0].name or "y")
        inputs = tuple(original if i is copy else i for i in node.inputs)
        removed.append(node)
        added.append(NewNode(node.op_type, inputs, (result,), attributes))
        rewire[node.outputs[0]] = result
    title = f"{copy.name} is {original.name} {turn}"
    edit = Edit(tuple(removed), reading_replacements(added, rewire), rewire=rewire)
    return Patch(title, removed[0], {scope: edit})


def _turned_reader(node: ir.Node, index: int, facts: Facts) -> dict[str, AttributeValue] | None:
    del facts
    if node.domain != "" or node.inputs.count(node.inputs[index]) > 1:
        return None
    kept: dict[str, AttributeValue] = dict(node.attributes)
    if node.op_type == "Gemm" and index < _MATRIX:
        flag = "transB" if index else "transA"
        present = node.attributes.get(flag)
        return {**kept, flag: 0 if present is not None and present.as_int() else 1}
    if node.op_type == "Transpose":
        perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else (1, 0)
        return {"perm": tuple(reversed(tuple(perm)))}
    return None


def _reshaped_reader(node: ir.Node, index: int, facts: Facts) -> dict[str, AttributeValue] | None:
    if node.domain != "" or node.op_type != "Reshape" or index != 0 or len(node.inputs) != _MATRIX:
        return None
    shape = facts.array(node.inputs[1])
    # A 0 copies the dimension of what is reshaped, which is no longer the same.
    return dict(node.attributes) if shape is not None and np.all(shape != 0) else None
