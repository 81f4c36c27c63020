"""encode-sparse: weights with zeros are stored in the encoding that takes the fewest bytes.

What it does
    A stored tensor becomes a sparse initializer, a bitmask, or gaps of a byte, whichever is the
    smallest, or the one asked for. Bitmask and gaps are decoded by standard operators on constants,
    which onnxruntime computes once, while it loads. Values that float16 holds without loss, and
    values of at most 255 kinds, are stored as that.

Why
    A weight of which 30 % are left takes a third of its bytes. Memory and the time of a run stay
    what they were; loading takes longer. It runs last: constant folding would undo it.

Leaves alone
    Tensors below 4 KiB, and what would not be smaller. What came encoded is encoded again, whatever
    is asked for. Inputs that are shapes, outputs of the graph, what a caller can override. Where
    the target lacks the operators of a decode graph a sparse initializer is still possible.

Exactness
    ROUNDING: the weights are the same bits, -0.0 and NaN too, and so are the outputs of an ordinary
    session. With the runtime's optimizations off, a product with a computed matrix is summed in
    another order than one with a stored matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.sparse import MARK
from structopt_onnx.model.tensors import detached
from structopt_onnx.passes.sparsity.constant_tree import decode_trees
from structopt_onnx.passes.sparsity.decode_graph import OPERATORS, OPSET, Decoder
from structopt_onnx.passes.sparsity.decode_sparse import DECODED
from structopt_onnx.rewriting.encodings import (
    DECODED_TYPES,
    LEAST_BYTES,
    Encoding,
    Layout,
    Nonzeros,
    encodings,
    stored,
)
from structopt_onnx.rewriting.passes import Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

FORMATS = ("auto", *get_args(Layout), "none")
_INDEX_BYTES = 8
_SHAPE_INPUTS: dict[str, frozenset[int]] = {
    "CenterCropPad": frozenset({1}),
    "Clip": frozenset({1, 2}),
    "ConstantOfShape": frozenset({0}),
    "Expand": frozenset({1}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1, 2, 3}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Upsample": frozenset({1}),
}


@dataclass(frozen=True)
class EncodeSparse(Pass):
    """Stores weights with zeros in fewer bytes.

    Parameters
    ----------
    sparse_format
        ``auto`` for the smallest, ``initializer``, ``bitmask`` or ``delta`` for one of these where
        it is smaller than dense, ``none`` for what came encoded only.
    target
        Whose operators a decode graph may be made of.
    least_bytes
        Tensors that take less are left as they are.
    most_bytes
        Largest value that the runtime computes while it loads; onnxruntime's default, which its
        option ``optimization.constant_folding_max_output_size_in_bytes`` sets.
    """

    name: ClassVar[str] = "encode-sparse"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    canonical: ClassVar[bool] = True
    encodes: ClassVar[bool] = True
    refusals: ClassVar[dict[str, str]] = {
        "graph-output": "it is an output of the graph",
        "old-opset": f"operators that decode it came with opset {OPSET}",
        "overridable": "a caller can override it",
        "shape-input": "an operator reads it as a shape, axes or the like",
        "target-lacks-operator": "the target has not all operators that decode it",
        "too-large": "the runtime would not compute it while it loads",
    }

    sparse_format: str = "auto"
    target: str = "cpu"
    least_bytes: int = LEAST_BYTES
    most_bytes: int = 2**30

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown format."""
        if self.sparse_format not in FORMATS:
            raise ValueError(f"sparse_format is one of {', '.join(FORMATS)}")

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield what could be done in one scope; reads only."""
        if scope.in_function:
            return
        parts = {leaf for tree in decode_trees(scope, facts) for leaf in tree.leaves}
        for value in tuple(scope.graph.initializers.values()):
            if value not in parts and self._is_candidate(value):
                yield from self._site(scope, facts, value)

    def _is_candidate(self, value: ir.Value) -> bool:
        tensor = value.const_value
        if tensor is None or not value.uses():
            return False
        if DECODED in tensor.meta:
            return True
        return self.sparse_format != "none" and tensor.nbytes >= self.least_bytes

    def _site(self, scope: Scope, facts: Facts, value: ir.Value) -> Iterator[Patch | Refusal]:
        tensor = value.const_value
        if tensor is None:
            return
        any_ = self.sparse_format in {"auto", "none"}
        told: set[str] = set()
        for encoding in encodings(tensor):
            if not any_ and encoding.layout != self.sparse_format:
                continue
            refusal = _misplaced(value) or self._excluded(encoding, scope, facts, value)
            if refusal is None:
                yield from _patch(scope, value, tensor, encoding)
                return
            if refusal.code not in told:
                told.add(refusal.code)
                yield refusal

    def stored_bytes(
        self, scope: Scope, facts: Facts, value: ir.Value, tensor: ir.TensorProtocol
    ) -> int | None:
        """Return what a weight would take with other numbers, if decoded by nodes; else None."""
        if not self._is_candidate(value) or _misplaced(value) is not None:
            return None
        any_ = self.sparse_format == "auto"
        sizes = (
            encoding.nbytes
            for encoding in encodings(tensor)
            if encoding.layout != "initializer"
            and (any_ or encoding.layout == self.sparse_format)
            and self._excluded(encoding, scope, facts, value) is None
        )
        return next(sizes, None)

    def _excluded(
        self, encoding: Encoding, scope: Scope, facts: Facts, value: ir.Value
    ) -> Refusal | None:
        """Say why this encoding can't be had here, if so."""
        if encoding.layout == "initializer" or value.const_value is None:
            return None
        name, tensor = value.name or "", value.const_value
        opset = facts.opset(scope) or 0
        if opset < OPSET:
            return Refusal("old-opset", f"{encoding.label}: opset {opset}", name)
        if tensor.size * _INDEX_BYTES >= self.most_bytes:
            return Refusal("too-large", f"{encoding.label}: {tensor.size} elements", name)
        target = TARGETS[self.target]
        lacking = sorted(
            op for op in OPERATORS[encoding.layout] if not target.supports(op, opset, tensor.dtype)
        )
        if lacking:
            detail = f"{encoding.label}: {target.name} lacks {', '.join(lacking)}"
            return Refusal("target-lacks-operator", detail, name)
        return None


def _misplaced(value: ir.Value) -> Refusal | None:
    """Say why a tensor must be left as it is, if so."""
    name = value.name or ""
    if value.is_graph_input():
        return Refusal("overridable", "also an input of the graph", name)
    if value.is_graph_output():
        return Refusal("graph-output", "also an output of the graph", name)
    for use in value.uses():
        node = use.node
        if node.domain == "" and (
            use.idx in _SHAPE_INPUTS.get(node.op_type, ())
            or (node.op_type.startswith("Reduce") and use.idx == 1)
        ):
            return Refusal("shape-input", f"input {use.idx} of {node.op_type}", name)
    return None


def _patch(
    scope: Scope, value: ir.Value, tensor: ir.TensorProtocol, encoding: Encoding
) -> Iterator[Patch]:
    nonzeros = Nonzeros.of(tensor)
    if nonzeros is None:
        return
    anchor = next(iter(value.uses())).node
    title = (
        f"{value.name}: {encoding.label}, {encoding.nbytes} of {tensor.nbytes} bytes"
        f" ({nonzeros.density:.1%} not zero)"
    )
    if encoding.layout == "initializer":
        if MARK not in tensor.meta and MARK not in value.meta:
            marked = detached(tensor)
            marked.meta[MARK] = True
            yield Patch(title, anchor, {scope: Edit(replace_data={value: marked})})
        return
    assert tensor.dtype in DECODED_TYPES  # noqa: S101 - `encodings` offers no others
    shape = tuple(int(d) for d in tensor.shape.numpy())
    decoder = Decoder(value.name or "", shape, tensor.dtype)
    dense = decoder.decode(encoding.layout, stored(nonzeros, encoding))
    edit = Edit(add=tuple(decoder.nodes), rewire={value: dense})
    yield Patch(title, anchor, {scope: edit})
