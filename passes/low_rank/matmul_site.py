"""Where a constant matrix multiplies activations: its orientation, its uses and its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

REFUSALS = {
    "weight-not-constant": "the caller can override the weight",
    "weight-rank": "the weight has more than two dimensions",
    "weight-dtype": "the weight is not float16, float32 or float64",
    "weight-not-finite": "the weight holds infinity or NaN",
    "weight-tied": "something other than a matrix product reads the weight too",
    "weight-roles": "the weight is used in different orientations",
    "weight-is-output": "the weight is a graph output",
    "operand-rank": "the rank of the other factor is unknown",
    "inside-subgraph": "activations inside a subgraph or function can't be observed",
}
_MATRIX = 2
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass(frozen=True, eq=False)
class Use:
    """One product that a weight takes part in, seen as ``y = W x`` per position.

    Parameters
    ----------
    node
        The MatMul or Gemm.
    weight_index
        Which input the weight is: 0 on the left, 1 on the right.
    transposed
        Whether the stored matrix is the transpose of the factor used (Gemm's transA, transB).
    data, data_axis
        The other factor and the axis that holds the input features.
    output_axis
        The axis of the node's output that holds the output features.
    add
        An Add of a constant vector that is the only reader of a MatMul's output.
    bias
        Constant added to the product, as a vector over the output features, float64 [m], or
        None: Gemm's ``beta C`` or the Add's constant.
    """

    node: ir.Node
    weight_index: int
    transposed: bool
    data: ir.Value
    data_axis: int
    output_axis: int
    add: ir.Node | None
    bias: npt.NDArray[np.float64] | None

    @property
    def scale(self) -> float:
        """Gemm's alpha."""
        return _attribute(self.node, "alpha", 1.0)


@dataclass(frozen=True, eq=False)
class MatmulSite:
    """A weight and every product it is used in.

    Parameters
    ----------
    weight
        The initializer, stored [K, N] or transposed.
    flipped
        Whether ``W`` [m, n], which maps input to output features, is the stored matrix's
        transpose.
    uses
        All uses, in graph order.
    """

    weight: ir.Value
    flipped: bool
    uses: tuple[Use, ...]

    def matrix(self, facts: Facts) -> npt.NDArray[np.float64]:
        """Return W, float64 [m, n]."""
        stored = np.asarray(facts.array(self.weight), np.float64)
        return stored.T if self.flipped else stored

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The weight as stored."""
        tensor = self.weight.const_value
        if tensor is None:  # matched on a constant
            raise ValueError(self.weight.name)
        return tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): output and input features."""
        first, second = (int(d) for d in self.tensor.shape.numpy())
        return (second, first) if self.flipped else (first, second)

    def bias_parameters(self) -> int:
        """Return how many parameters it takes to add one constant per output feature."""
        return sum(self.shape[0] - _let_go(use) for use in self.uses if use.bias is not None)


def _let_go(use: Use) -> int:
    """Return the size of the constant that a new bias takes the place of, where it goes then."""
    if use.add is not None:
        reader, old = use.add, next(i for i in use.add.inputs if i is not use.node.outputs[0])
    else:
        reader, old = use.node, use.node.inputs[_MATRIX] if len(use.node.inputs) > _MATRIX else None
    if old is None or old.const_value is None or old.is_graph_output() or old.is_graph_input():
        return 0
    stays = any(other.node is not reader for other in old.uses())
    return 0 if stays else int(old.const_value.size)


def find_sites(scope: Scope, facts: Facts) -> Iterator[MatmulSite | Refusal]:
    """Yield each weight of Gemm and MatMul nodes in a scope once, or why it must stay."""
    seen: set[ir.Value] = set()
    for node in scope.graph:
        if node.domain != "" or node.op_type not in {"MatMul", "Gemm"}:
            continue
        for index in (1, 0):
            weight = node.inputs[index]
            if weight is None or weight in seen or not weight.is_initializer():
                continue
            seen.add(weight)
            found = _site(weight, scope, facts)
            if found is not None:
                yield found


def site_of(weight_name: str, scope: Scope, facts: Facts) -> MatmulSite | Refusal:
    """Find a weight's site again by name; code ``superseded`` when it is gone."""
    weight = scope.graph.initializers.get(weight_name)
    found = None if weight is None else _site(weight, scope, facts)
    return found or Refusal("superseded", "an earlier rewrite took it", weight_name)


def _site(weight: ir.Value, scope: Scope, facts: Facts) -> MatmulSite | Refusal | None:
    name = weight.name or ""
    tensor = weight.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or len(tensor.shape) < _MATRIX:
        return None
    unfit = _unfit(weight, tensor, scope)
    if unfit is not None:
        return Refusal(*unfit, name)
    uses: list[Use] = []
    for node, index in weight.uses():
        if node.graph is not scope.graph:
            return Refusal("inside-subgraph", f"node '{node.name}' reads it", name)
        use = _use(node, index, weight, facts)
        if isinstance(use, str):
            return Refusal(use, f"{node.op_type} '{node.name}' reads it", name)
        uses.append(use)
    if len({(use.weight_index, use.transposed, use.data_axis) for use in uses}) != 1:
        return Refusal("weight-roles", f"{len(uses)} uses", name)
    order = {node: position for position, node in enumerate(scope.graph)}
    uses.sort(key=lambda use: order[use.node])
    return MatmulSite(weight, (uses[0].weight_index == 1) != uses[0].transposed, tuple(uses))


def _unfit(weight: ir.Value, tensor: ir.TensorProtocol, scope: Scope) -> tuple[str, str] | None:
    if not scope.is_main:
        return "inside-subgraph", scope.path
    if weight.is_graph_input():
        return "weight-not-constant", "it is a graph input as well"
    if weight.is_graph_output():
        return "weight-is-output", "it is a graph output as well"
    if len(tensor.shape) != _MATRIX:
        return "weight-rank", f"shape {tensor.shape}"
    if tensor.dtype not in _DTYPES:
        return "weight-dtype", tensor.dtype.name
    if not np.isfinite(tensor.numpy()).all():
        return "weight-not-finite", "it holds infinity or NaN"
    return None


def _use(node: ir.Node, index: int, weight: ir.Value, facts: Facts) -> Use | str:
    if node.domain != "" or node.op_type not in {"MatMul", "Gemm"} or index > 1:
        return "weight-tied"
    data = node.inputs[1 - index]
    if data is None or data is weight:
        return "weight-tied"
    if node.op_type == "Gemm":
        transposed = bool(_attribute(node, "transB" if index else "transA", 0))
        data_transposed = bool(_attribute(node, "transA" if index else "transB", 0))
        data_axis = -1 if bool(index) != data_transposed else -2
        bias = _gemm_bias(node, index, facts)
        return Use(node, index, transposed, data, data_axis, -1 if index else -2, None, bias)
    rank = facts.rank(data)
    if index == 0 and rank is None:
        return "operand-rank"
    axis = -1 if index == 1 or rank == 1 else -2
    add, bias = _following_add(node, axis, facts)
    return Use(node, index, False, data, axis, axis, add, bias)


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def _as_vector(array: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.float64] | None:
    """Read a constant that broadcasts over the output as one number per output feature."""
    position = array.ndim + axis
    if any(size != 1 for k, size in enumerate(array.shape) if k != position):
        return None
    return np.asarray(array, np.float64).reshape(-1)


def _gemm_bias(node: ir.Node, index: int, facts: Facts) -> npt.NDArray[np.float64] | None:
    if len(node.inputs) <= _MATRIX or node.inputs[2] is None:
        return np.zeros(1)
    constant = facts.array(node.inputs[2])
    if constant is None:
        return None
    vector = _as_vector(constant, -1 if index else -2)
    return None if vector is None else _attribute(node, "beta", 1.0) * vector


def _following_add(
    node: ir.Node, axis: int, facts: Facts
) -> tuple[ir.Node | None, npt.NDArray[np.float64] | None]:
    output = node.outputs[0]
    uses = output.uses()
    if output.is_graph_output() or len(uses) != 1:
        return None, None
    add, position = next(iter(uses))
    if add.domain != "" or add.op_type != "Add" or add.graph is not node.graph:
        return None, None
    constant = facts.array(add.inputs[1 - position])
    vector = None if constant is None else _as_vector(constant, axis)
    return (None, None) if vector is None else (add, vector)
