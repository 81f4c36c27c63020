"""Which spatial positions of a value its readers use: the demand, as a lattice per axis.

A value with lattice ``(2, 2)`` is read at even rows and columns only. Demands flow from readers to
producers; where a producer can take the lattice into its own strides, or works on each position
by itself, it need not make the other positions.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd, prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.passes.convolution.geometry import POOLS, sliced_window, window
from structopt_onnx.passes.convolution.pointwise import Pointwise
from structopt_onnx.rewriting.cost import node_macs

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.convolution.geometry import Window

Lattice = tuple[int, ...]

# Reading one element to leave out its neighbours takes as long as this many multiply-accumulates
# (MaxPool with a kernel of 1 on 128 x 56 x 56: 0.07 ms, at 5.5e10 per second).
_MACS_PER_ELEMENT = 10
_SUBSAMPLED = {ir.DataType.FLOAT, ir.DataType.DOUBLE}
_SUBSAMPLED_FROM_12 = {ir.DataType.INT8, ir.DataType.UINT8}
_WITH_INTEGERS = 12
_MOST_POOLED_AXES = 3  # in onnxruntime


class Demand:
    """The lattices on which the values of a scope are enough.

    Parameters
    ----------
    scope, facts
        The scope to look at, and facts about its model.
    """

    def __init__(self, scope: Scope, facts: Facts) -> None:
        self._scope, self._facts = scope, facts
        self.pointwise = Pointwise(scope, facts)
        self.windows = {
            node: found
            for node in scope.graph
            if node.domain == ""
            if (found := _window(node, facts)) is not None
        }
        self._chosen: dict[ir.Value, Lattice] = {}
        for node in reversed(tuple(scope.graph)):
            if node.outputs:
                self._chosen[node.outputs[0]] = self._choose(node)

    def lattice(self, value: ir.Value | None) -> Lattice:
        """Return the lattice chosen for a value; empty or all ones for every position."""
        return self._chosen.get(value, ()) if value is not None else ()

    def is_thinned(self, value: ir.Value | None) -> bool:
        """Whether positions of a value are left out."""
        return any(step > 1 for step in self.lattice(value))

    def wanted(self, value: ir.Value, raised: ir.Node | None = None, to: Lattice = ()) -> Lattice:
        """Return what the readers of a value ask for, as if node `raised` made lattice `to`."""
        if value.is_graph_output():
            return ()
        asked: Lattice | None = None
        for use in value.uses():
            made = to if use.node is raised else self._made(use.node)
            ask = self._ask(use.node, use.idx, made)
            if not any(step > 1 for step in ask):
                return ()
            asked = ask if asked is None else _common(asked, ask)
        return asked or ()

    def absorbs(self, node: ir.Node) -> str | None:
        """Say by a refusal code why a convolution or pool can't make fewer outputs, or None."""
        slides = self.windows.get(node)
        if slides is None:
            return "pads-depend-on-size"
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            return "indices-read"
        if slides.has_partial(self._facts.dims(node.inputs[0])):
            return "ceil-mode"
        return None

    def read(self, node: ir.Node, made: Lattice = ()) -> Lattice:
        """Return the lattice that a node reads of its input where it makes another; () for all."""
        slides = self.windows.get(node)
        if slides is None or slides.ceil or len(node.outputs) > 1:
            return ()
        if node.op_type != "Conv" and not slides.is_point:
            return ()
        made = made or (1,) * slides.axes
        strides = tuple(s * m for s, m in zip(slides.strides, made, strict=True))
        return replace(slides, strides=strides).lattice(self.sizes(node))

    def sizes(self, node: ir.Node) -> tuple[int | None, ...]:
        """Return the spatial sizes of what a convolution or pool reads, as far as declared."""
        dims = self._facts.dims(node.inputs[0])
        return (None,) * self.windows[node].axes if dims is None else dims[2:]

    def _made(self, node: ir.Node) -> Lattice:
        return self._chosen.get(node.outputs[0], ()) if node.outputs else ()

    def _ask(self, node: ir.Node, index: int, made: Lattice) -> Lattice:
        if node.graph is not self._scope.graph:
            return ()
        if index == 0 and node in self.windows:
            return self.read(node, made)
        operands = self.pointwise.operands(node)
        return made if operands is not None and index in operands else ()

    def _choose(self, node: ir.Node) -> Lattice:
        if node.graph is not self._scope.graph or node.domain != "":
            return ()
        wanted = self.wanted(node.outputs[0])
        if not any(step > 1 for step in wanted):
            return ()
        if node.op_type == "Conv" or node.op_type in POOLS:
            return wanted if self.absorbs(node) is None else ()
        return wanted if self.gain(node, wanted) > 0 else ()

    def gain(self, node: ir.Node, steps: Lattice) -> float:
        """Estimate the multiply-accumulates saved if a node makes only every so many positions."""
        kept = 1 / prod(steps)
        output = node.outputs[0]
        made = prod(self._facts.concrete(output) or (0,))
        if node.op_type == "Conv" or node.op_type in POOLS:
            if self.absorbs(node) is not None:
                return -self.toll(output)
            if node.op_type != "Conv":
                return (1 - kept) * made * prod(self.windows[node].kernel)
            shapes = [self._facts.concrete(value) for value in node.inputs]
            return (1 - kept) * node_macs("Conv", node.attributes, shapes, [(made,)])
        operands = self.pointwise.operands(node)
        if operands is None:
            return -self.toll(output)
        total = 0.0
        for value in {node.inputs[index] for index in operands}:
            producer = None if value is None else value.producer()
            if value is None or producer is None or self.wanted(value, node, steps) != steps:
                total -= self.toll(value)
            else:
                gained = self.gain(producer, steps)
                total += gained if gained > 0 else -self.toll(value)
        return total

    def toll(self, value: ir.Value | None) -> float:
        """Return what it takes to leave out positions of a value that is made in full."""
        if value is None:
            return float("inf")
        opset = self._facts.opset(self._scope) or 0
        dtypes = _SUBSAMPLED | (_SUBSAMPLED_FROM_12 if opset >= _WITH_INTEGERS else set())
        axes = (self._facts.rank(value) or 0) - 2
        if self._facts.dtype(value) not in dtypes or axes > _MOST_POOLED_AXES:
            return float("inf")
        return float(prod(self._facts.concrete(value) or (0,)) * _MACS_PER_ELEMENT)


def _window(node: ir.Node, facts: Facts) -> Window | None:
    if node.op_type == "Slice":
        return sliced_window(node, facts)
    return window(node, facts) if node.op_type == "Conv" or node.op_type in POOLS else None


def _common(one: Lattice, other: Lattice) -> Lattice:
    return tuple(gcd(a, b) for a, b in zip(one, other, strict=True)) if other else ()
