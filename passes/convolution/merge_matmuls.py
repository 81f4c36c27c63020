"""merge-matmuls: two products with stored matrices and nothing between are one, where that is less.

What it does
    Multiplies the weights of a Gemm or MatMul and of the one that alone reads it, and folds the
    first's bias into the second's.

Why
    Two linear layers in a row are one; where the width between them is larger than what the
    product needs, each row costs more than it has to.

Leaves alone
    Pairs whose product has more elements than both weights together, which is what low-rank
    factors are. Results read elsewhere, weights that are not stored, biases per row.

Exactness
    ROUNDING: the same linear map, with its products multiplied out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.narrowing import narrowed
from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import integer, is_open
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_MATRIX = 2
_BIASED = 3  # inputs of a Gemm with a bias
_OPTIONAL_BIAS = 11  # opset in which Gemm can do without


@dataclass(frozen=True, eq=False)
class Product:
    """One product: rows times ``weight``, plus ``bias``, both with their factors in, float64."""

    node: ir.Node
    weight: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class MergeMatmuls(NodePass[tuple[Product, Product]]):
    """Has no options."""

    name: ClassVar[str] = "merge-matmuls"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Gemm", "MatMul"})
    refusals: ClassVar[dict[str, str]] = {
        "bias-not-constant": "a bias may change from run to run, or differs from row to row",
        "not-finite": "the type can't hold the merged weight or bias",
        "read-elsewhere": "the first's result is read elsewhere, or a graph output",
        "weight-not-stored": "a weight is computed or can be overridden",
    }

    def match(
        self, node: ir.Node, scope: Scope, facts: Facts
    ) -> tuple[Product, Product] | Refusal | None:
        """Look for a product that this one reads."""
        del scope
        value, name = node.inputs[0], node.name or ""
        first = None if value is None else value.producer()
        if value is None or first is None or first.domain != "" or first.graph is not node.graph:
            return None
        if first.op_type not in self.roots or is_open(first) or is_open(node):
            return None
        if integer(node, "transA", 0):
            return None
        shapes = [_matrix(n, facts) for n in (first, node)]
        one, two = shapes
        if one is None or two is None or value in node.inputs[1:]:
            return None
        if not _pays(one, two):
            return None
        if value.is_graph_output() or len(value.uses()) > 1:
            return Refusal("read-elsewhere", f"'{value.name}' is", name)
        found = _product(first, facts), _product(node, facts)
        for product in found:
            if isinstance(product, str):
                return Refusal(product, f"behind '{first.name}'", name)
        before, after = found
        if isinstance(before, Product) and isinstance(after, Product):
            return before, after
        return None

    def rewrite(
        self, scope: Scope, facts: Facts, match: tuple[Product, Product]
    ) -> Patch | Refusal:
        """Describe the one product."""
        first, second = match
        result = second.node.outputs[0]
        name, dtype = result.name or "merged", np.asarray(facts.array(second.node.inputs[1])).dtype
        bias = second.bias
        with np.errstate(all="ignore"):  # what is not finite is refused
            weight = narrowed(first.weight @ second.weight, dtype)
            if first.bias is not None:
                carried = first.bias @ second.weight
                bias = carried if bias is None else bias + carried
        kinds = {first.node.op_type, second.node.op_type}
        inputs: list[ir.Value | Fresh | None] = [first.node.inputs[0]]
        attributes: dict[str, AttributeValue] = {}
        if "Gemm" in kinds:
            attributes["transA"] = integer(first.node, "transA", 0)
            if bias is None and (facts.opset(scope) or 0) < _OPTIONAL_BIAS:
                bias = np.zeros(second.weight.shape[1])
        stored = [weight] if bias is None else [weight, narrowed(bias, dtype)]
        for array, what in zip(stored, ("weight", "bias"), strict=False):
            if array is None:
                detail = f"{what} behind '{first.node.name}'"
                return Refusal("not-finite", detail, second.node.name or "")
            inputs.append(Fresh(f"{name}_{what}", ir.tensor(array)))
        made = Fresh(name)
        op_type = "Gemm" if "Gemm" in kinds else "MatMul"
        node = NewNode(op_type, tuple(inputs), (made,), attributes)
        edit = Edit((first.node, second.node), (node,), (), {result: made})
        title = f"'{first.node.outputs[0].name}' and '{name}' are one product"
        return Patch(title, second.node, {scope: edit})


def _pays(one: tuple[int, int], two: tuple[int, int]) -> bool:
    """Whether the product of two matrices has no more elements than both together."""
    return one[0] * two[1] <= one[0] * one[1] + two[0] * two[1]


def _matrix(node: ir.Node, facts: Facts) -> tuple[int, int] | None:
    """Return rows and columns of a weight as the product uses it; None unless it is a matrix."""
    dims = facts.dims(node.inputs[1])
    dtype = None if node.inputs[1] is None else facts.dtype(node.inputs[1])
    if dims is None or len(dims) != _MATRIX or dtype is None or not dtype.is_floating_point():
        return None
    rows, columns = dims
    if rows is None or columns is None:
        return None
    return (columns, rows) if integer(node, "transB", 0) else (rows, columns)


def _product(node: ir.Node, facts: Facts) -> Product | str:
    """Return a product with its constants, or the code of why not."""
    weight = node.inputs[1]
    array = facts.array(weight)
    if weight is None or not weight.is_initializer() or array is None:
        return "weight-not-stored"
    matrix = array.astype(np.float64)
    if integer(node, "transB", 0):
        matrix = matrix.T
    alpha, beta = (_number(node, name) for name in ("alpha", "beta"))
    summand = node.inputs[2] if len(node.inputs) == _BIASED else None
    if summand is None:
        return Product(node, alpha * matrix, None)
    bias = facts.array(summand)
    if bias is None or (bias.ndim == _MATRIX and bias.shape[0] != 1):
        return "bias-not-constant"
    row = np.broadcast_to(bias.astype(np.float64).reshape(-1), (matrix.shape[1],))
    return Product(node, alpha * matrix, beta * row)


def _number(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return 1.0 if attribute is None else attribute.as_float()
