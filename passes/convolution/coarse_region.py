"""What follows a convolution position by position, and so can work on blocks of positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, reading_replacements
from structopt_onnx.passes.convolution.geometry import integer, integers, is_open, window
from structopt_onnx.passes.convolution.pointwise import Pointwise
from structopt_onnx.rewriting.cost import Cost, node_macs
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_GLOBAL = {"GlobalAveragePool", "GlobalMaxPool"}
_REDUCTIONS = {"ReduceMax", "ReduceMean", "ReduceMin"}
_RESIZES_WITHOUT_ROI = 13
_COPIES = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


@dataclass(frozen=True, eq=False)
class CoarseRegion:
    """The part of a graph behind a convolution that may work on one value per block.

    Parameters
    ----------
    made
        What the convolution makes.
    inside
        Nodes that work position by position on it alone, each with the operands that hold
        positions.
    nodes
        All nodes that are rewritten, in graph order: these, and those that make the same of blocks
        as of positions.
    raised
        Values that others read position by position, or that are graph outputs.
    """

    made: ir.Value
    inside: Mapping[ir.Node, tuple[int, ...]]
    nodes: tuple[ir.Node, ...]
    raised: tuple[ir.Value, ...]

    def costs(self, steps: tuple[int, ...], facts: Facts, target: str) -> tuple[Cost, Cost]:
        """Count the nodes on a target: on all positions, and on blocks with what raises them."""
        ones, scales = (1,) * len(steps), (2 + len(steps)) * bool(self.raised)
        after = Cost(scales, 4 * scales, nodes=len(self.raised)) + self._cost(steps, facts)
        both = self._cost(ones, facts), after
        was, now = (replace(cost, seconds=TARGETS[target].seconds(cost)) for cost in both)
        return was, now

    def _cost(self, steps: tuple[int, ...], facts: Facts) -> Cost:
        macs = 0
        for node in self.inside:
            made = facts.concrete(node.outputs[0])
            shapes = [facts.concrete(value) for value in node.inputs]
            out = None if made is None else on_blocks(made, steps)
            macs += node_macs(node.op_type, node.attributes, shapes, [out])
        return Cost(macs=macs, nodes=len(self.nodes))

    def edit(self, conv: ir.Node, low: Fresh, steps: tuple[int, ...], opset: int) -> Edit:
        """Describe the nodes on blocks, and the copies of blocks to all positions.

        Parameters
        ----------
        conv
            The convolution, to be removed.
        low
            What is made in its place, one value per block.
        steps
            Size of a block per spatial axis.
        opset
            Decides on the form of Resize.
        """
        lows: dict[ir.Value, Fresh] = {self.made: low}
        nodes: list[NewNode] = []
        rewire: dict[ir.Value, ir.Value | Fresh] = {}
        for node in self.nodes:
            inputs: list[Operand] = list(node.inputs)
            for index in self.inside.get(node, (0,)):
                value = node.inputs[index]
                inputs[index] = value if value is None else lows[value]
            output = node.outputs[0]
            fresh = Fresh(f"{output.name}_low")
            if node in self.inside:
                lows[output] = fresh
            else:
                rewire[output] = fresh
            nodes.append(NewNode(node.op_type, tuple(inputs), (fresh,), node.attributes))
        scales = ir.tensor(np.array([1, 1, *steps], np.float32))
        by = Fresh(f"{low.name}_scales", scales)
        none = Fresh(f"{low.name}_roi", ir.tensor(np.zeros(0, np.float32)))
        roi = none if opset < _RESIZES_WITHOUT_ROI else None
        for value in self.raised:
            whole = Fresh(f"{value.name}_raised")
            nodes.append(NewNode("Resize", (lows[value], roi, by), (whole,), _COPIES))
            rewire[value] = whole
        # What is less its own mean reads a node that is rewritten, too.
        return Edit((conv, *self.nodes), reading_replacements(nodes, rewire), (), rewire)


def on_blocks(shape: tuple[int, ...], steps: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape [N, C, spatial...] of one value per block."""
    sizes = (-(-size // step) for size, step in zip(shape[2:], steps, strict=True))
    return (*shape[:2], *sizes)


class CoarseRegions:
    """Finds the regions behind the convolutions of a scope.

    Parameters
    ----------
    scope, facts
        Where to look.
    """

    def __init__(self, scope: Scope, facts: Facts) -> None:
        self._graph, self._facts = scope.graph, facts
        self._pointwise = Pointwise(scope, facts)
        self._order = {node: position for position, node in enumerate(scope.graph)}

    def behind(self, made: ir.Value, axes: frozenset[int]) -> CoarseRegion:
        """Follow what a convolution makes to where positions of an axis meet, or others join."""
        low, waiting = {made}, [made]
        inside: dict[ir.Node, tuple[int, ...]] = {}
        pooled: set[ir.Node] = set()
        while waiting:
            for node, index in waiting.pop().uses():
                operands = self._operands(node)
                if node in inside or node.graph is not self._graph:
                    continue
                output = node.outputs[0]
                alike = self._facts.dtype(output) is self._facts.dtype(made)
                if operands and alike and all(node.inputs[k] in low for k in operands):
                    inside[node] = operands
                    low.add(output)
                    waiting.append(output)
                elif index == 0 and self._pools(node, axes):
                    pooled.add(node)
        nodes = tuple(sorted({*inside, *pooled}, key=self._order.__getitem__))
        raised = [
            value
            for value in (made, *(node.outputs[0] for node in nodes if node in inside))
            if value.is_graph_output()
            or any(
                node not in pooled and index not in inside.get(node, ())
                for node, index in value.uses()
            )
        ]
        return CoarseRegion(made, inside, nodes, tuple(raised))

    def _operands(self, node: ir.Node) -> tuple[int, ...] | None:
        """Return the inputs with the output's positions where one position is read for each."""
        if node.domain == "" and node.op_type == "Conv":
            slides = window(node, self._facts)
            point = slides is not None and slides.is_point and set(slides.strides) == {1}
            return (0,) if point else None
        return self._pointwise.operands(node)

    def _pools(self, node: ir.Node, axes: frozenset[int]) -> bool:
        """Whether a node takes mean, maximum or minimum along all the axes of blocks."""
        if node.domain != "" or is_open(node):
            return False
        if node.op_type not in _REDUCTIONS:
            return node.op_type in _GLOBAL
        rank = self._facts.rank(node.inputs[0])
        along = integers(node, "axes", ())
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            given = self._facts.array(node.inputs[1])
            if given is None:
                return False
            along = tuple(given.tolist())
        if not along:
            return not integer(node, "noop_with_empty_axes", 0)
        return rank is not None and axes <= {axis % rank for axis in along}
