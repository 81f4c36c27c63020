"""Values connected by operators that work in any axis order, and what turning all of them costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.passes.convolution.geometry import integer, integers, is_open
from structopt_onnx.passes.convolution.pointwise import BROADCASTING, UNARY

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Perm = tuple[int, ...]

REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2"})
_BY_AXIS = {"Softmax", "LogSoftmax", "Concat"}
_SOFTMAX_BY_AXIS = 13  # before, it took all axes from `axis` on for one
_PADS_BY_INPUT = 11


def inverse(perm: Perm) -> Perm:
    """Return the permutation that undoes another."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def after(first: Perm, second: Perm) -> Perm:
    """Return the permutation of two transposes, one after the other."""
    return tuple(first[axis] for axis in second)


def perm_of(node: ir.Node | None, facts: Facts) -> Perm | None:
    """Return the permutation of a Transpose; None for other nodes and unknown ranks."""
    if node is None or node.domain != "" or node.op_type != "Transpose" or is_open(node):
        return None
    rank = facts.rank(node.inputs[0])
    return None if rank is None else integers(node, "perm", tuple(reversed(range(rank))))


@dataclass(eq=False)
class Component:
    """Values that must all be turned, or none: an operator connects each to the others.

    Parameters
    ----------
    values
        The values, all of one rank.
    nodes
        The operators between them, in order of the graph.
    exits
        Reductions that read one of the values and drop the reduced axes.
    """

    values: dict[ir.Value, None] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    exits: list[ir.Node] = field(default_factory=list)


class Layout:
    """The components of a scope.

    Parameters
    ----------
    scope, facts
        The scope to look at, and facts about its model.
    """

    def __init__(self, scope: Scope, facts: Facts) -> None:
        self.scope, self.facts = scope, facts
        self._of: dict[ir.Value, Component] = {}
        for node in scope.graph:
            self._place(node)
        self.components = list(dict.fromkeys(self._of.values()))

    def _place(self, node: ir.Node) -> None:
        perm = perm_of(node, self.facts)
        if perm is not None:
            for value in (node.inputs[0], node.outputs[0]):
                self._join([value] if value is not None else [])
            return
        operands = self.operands(node)
        if operands is None:
            return
        turned = [value for index in operands if (value := node.inputs[index]) is not None]
        if self._drops_axes(node):
            self._join(turned).exits.append(node)
        else:
            self._join([*turned, node.outputs[0]]).nodes.append(node)

    def _join(self, values: list[ir.Value]) -> Component:
        found = list(dict.fromkeys(self._of[v] for v in values if v in self._of))
        whole = max(found, key=lambda c: len(c.values), default=Component())
        for part in found:
            if part is not whole:
                whole.values.update(part.values)
                whole.nodes += part.nodes
                whole.exits += part.exits
                self._of.update(dict.fromkeys(part.values, whole))
        for value in values:
            whole.values[value] = None
            self._of[value] = whole
        return whole

    def axes(self, node: ir.Node) -> tuple[int, ...] | None:
        """Return the axes that a reduction is over; None when not known."""
        rank = self.facts.rank(node.inputs[0])
        if rank is None:
            return None
        if len(node.inputs) > 1:
            array = self.facts.array(node.inputs[1])
            listed = None if array is None else tuple(int(a) for a in array.reshape(-1))
        else:
            listed = integers(node, "axes", ())
        return tuple(axis % rank for axis in listed) if listed else None

    def _drops_axes(self, node: ir.Node) -> bool:
        return node.op_type in REDUCTIONS and integer(node, "keepdims", 1) == 0

    def operands(self, node: ir.Node) -> list[int] | None:
        """Return the inputs that turn with the output; None for operators bound to an order.

        Constants among the other inputs are turned as they are stored.
        """
        if node.domain != "" or len(node.outputs) != 1 or not node.inputs or is_open(node):
            return None
        kind, facts = node.op_type, self.facts
        rank = facts.rank(node.inputs[0])
        if kind in UNARY:
            return [0] if rank else None
        if kind in BROADCASTING:
            return self._broadcast(node)
        if rank is None:
            return None
        if kind in _BY_AXIS:
            split = kind != "Concat" and (facts.opset(self.scope) or 0) < _SOFTMAX_BY_AXIS
            return None if split else list(range(len(node.inputs)))
        if kind in REDUCTIONS:
            return [0] if self.axes(node) is not None else None
        if kind == "Pad":
            known = (facts.opset(self.scope) or 0) >= _PADS_BY_INPUT and len(node.inputs) < 4  # noqa: PLR2004 - data, pads, value; axes
            return [0] if known and facts.array(node.inputs[1]) is not None else None
        if kind in {"QuantizeLinear", "DequantizeLinear"}:
            return [0] if facts.rank(node.inputs[1]) == 0 else None
        return None

    def _broadcast(self, node: ir.Node) -> list[int] | None:
        values = {i: v for i, v in enumerate(node.inputs) if v is not None}
        ranks = {index: self.facts.rank(value) for index, value in values.items()}
        rank = max((r for r in ranks.values() if r is not None), default=0)
        if None in ranks.values() or rank == 0:
            return None
        moving = [i for i, v in values.items() if ranks[i] and not self.is_constant(v)]
        return moving if moving and all(ranks[i] == rank for i in moving) else None

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether a value is stored and can be stored turned instead."""
        return value is not None and value.is_initializer() and not value.is_graph_input()

    def component(self, value: ir.Value | None) -> Component | None:
        """Return the component of a value."""
        return None if value is None else self._of.get(value)
