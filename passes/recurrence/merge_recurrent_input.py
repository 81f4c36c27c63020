"""merge-recurrent-input: a product before RNN, GRU or LSTM joins the operator's input weight.

What it does
    ``W (M^T x + b) + B`` is ``(W M^T) x + (W b + B)``: a MatMul with a stored matrix, and the Add
    of a stored bias behind it, that an RNN, GRU or LSTM alone reads, go into its W and the input
    half of its B. B is made where there is a bias and the node has none.

Why
    Cells that exporters write out step by step often have their inputs multiplied in advance, all
    steps at once; rolled up, their W is the identity of as many rows as the gates have.

Leaves alone
    Pairs whose merged weight has more elements than both together, which is what low-rank factors
    are. Results read elsewhere, weights that are not stored or are shared, biases per step or row.

Exactness
    ROUNDING: the same linear map, with its products multiplied out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeGuard

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.narrowing import narrowed
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import is_open
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_MATRIX = 2
_SEQUENCE = 3


@dataclass(frozen=True, eq=False)
class Ahead:
    """What comes before a recurrent node: nodes, matrix [K, I] and bias [I], float64."""

    node: ir.Node
    product: ir.Node
    nodes: tuple[ir.Node, ...]
    matrix: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class MergeRecurrentInput(NodePass[Ahead]):
    """Has no options."""

    name: ClassVar[str] = "merge-recurrent-input"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset(op.GATES)
    refusals: ClassVar[dict[str, str]] = {
        "bias-not-constant": "a bias may change from run to run, or differs from row to row",
        "not-finite": "the type can't hold the merged weight or bias",
        "read-elsewhere": "the product or its sum is read elsewhere, or a graph output",
        "weight-not-stored": "a weight is computed or can be overridden",
        "weight-shared": "a weight is read elsewhere too, and would be there twice",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Ahead | Refusal | None:
        """Look for a product, with a bias or not, that this node reads."""
        del scope
        name, found = node.name or "", _before(node)
        if found is None or is_open(node):
            return None
        product, added, nodes = found
        shapes = [facts.dims(v) for v in (product.inputs[1], op.operand(node, op.W))]
        if not _pays(*shapes):
            return None
        for one in nodes:
            result = one.outputs[0]
            if result.is_graph_output() or len(result.uses()) > 1:
                return Refusal("read-elsewhere", f"'{result.name}' is", name)
        matrix = _stored(product.inputs[1], facts)
        held = [op.operand(node, k) for k in ((op.W,) if added is None else (op.W, op.B))]
        if matrix is None or any(v is not None and _stored(v, facts) is None for v in held):
            return Refusal("weight-not-stored", f"behind '{product.name}'", name)
        if any(len(v.uses()) > 1 for v in (product.inputs[1], op.operand(node, op.W)) if v):
            return Refusal("weight-shared", f"behind '{product.name}'", name)
        bias = None
        if added is not None:
            array = facts.array(added)
            wide = matrix.shape[1]
            if array is None or array.ndim > _MATRIX or not _is_row(array, wide):
                return Refusal("bias-not-constant", f"'{added.name}'", name)
            bias = np.broadcast_to(array.astype(np.float64).reshape(-1), (wide,))
        return Ahead(node, product, nodes, matrix, bias)

    def rewrite(self, scope: Scope, facts: Facts, match: Ahead) -> Patch | Refusal:
        """Describe the node with the product in its weight."""
        node, name = match.node, match.node.name or match.node.op_type
        weight, bias = (op.operand(node, k) for k in (op.W, op.B))
        stored = np.asarray(facts.array(weight))
        wide = stored.astype(np.float64)
        operands: list[Operand] = list(node.inputs)
        operands[op.X] = match.product.inputs[0]
        with np.errstate(all="ignore"):  # what is not finite is refused
            merged = {op.W: wide @ match.matrix.T}
            if match.bias is not None:
                directions, rows, _ = wide.shape
                total = np.zeros((directions, 2 * rows))
                if bias is not None:
                    total += np.asarray(facts.array(bias))
                total[:, :rows] += wide @ match.bias
                merged[op.B] = total
            kept = {k: narrowed(array, stored.dtype) for k, array in merged.items()}
        operands += [None] * (op.B + 1 - len(operands))
        for index, array in kept.items():
            if array is None:
                return Refusal("not-finite", f"behind '{match.product.name}'", node.name or "")
            operands[index] = Fresh(f"{name}_{'W' if index == op.W else 'B'}", ir.tensor(array))
        while operands[-1] is None:
            operands.pop()
        outputs = tuple(Fresh(o.name or f"{name}_{k}") for k, o in enumerate(node.outputs))
        made = NewNode(node.op_type, tuple(operands), outputs, dict(node.attributes.items()))
        rewire = {old: new for old, new in zip(node.outputs, outputs, strict=True) if old.name}
        title = f"'{match.product.outputs[0].name}' goes into the input weight of '{node.name}'"
        edit = Edit((*match.nodes, node), (made,), (), rewire)
        return Patch(title, node, {scope: edit})


def _before(node: ir.Node) -> tuple[ir.Node, ir.Value | None, tuple[ir.Node, ...]] | None:
    """Return the product that a node reads, what is added to it, and the nodes of both."""
    value = node.inputs[op.X]
    first = None if value is None else value.producer()
    if _is(first, "MatMul", node):
        return first, None, (first,)
    if not _is(first, "Add", node):
        return None
    one, other = first.inputs
    for summed, added in ((one, other), (other, one)):
        product = None if summed is None else summed.producer()
        if _is(product, "MatMul", node):
            return product, added, (first, product)
    return None


def _is(found: ir.Node | None, op_type: str, beside: ir.Node) -> TypeGuard[ir.Node]:
    return (
        found is not None
        and found.op_type == op_type
        and found.domain == ""
        and found.graph is beside.graph
        and not is_open(found)
    )


def _pays(matrix: tuple[int | None, ...] | None, weight: tuple[int | None, ...] | None) -> bool:
    """Whether W M^T has no more elements than W and M together."""
    if matrix is None or weight is None or len(matrix) != _MATRIX or len(weight) != _SEQUENCE:
        return False
    (features, inner), (directions, rows, width) = matrix, weight
    if None in {features, directions, rows} or inner is None or inner != width:
        return False
    rows = (directions or 0) * (rows or 0)
    return rows * (features or 0) <= inner * (rows + (features or 0))


def _is_row(array: np.ndarray, wide: int) -> bool:
    """Whether an array adds the same to every row of so many columns."""
    return array.size == 1 or array.shape[-1] == array.size == wide


def _stored(value: ir.Value | None, facts: Facts) -> np.ndarray | None:
    array = None if value is None or not value.is_initializer() else facts.array(value)
    return None if array is None else array.astype(np.float64)
