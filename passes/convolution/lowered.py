"""A lower resolution ahead of a convolution that would not see the difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.model.edit import AttributeValue, Fresh, NewNode
from structopt_onnx.passes.convolution.conv_to_pool import POINTWISE
from structopt_onnx.passes.convolution.geometry import Window, is_open, window
from structopt_onnx.passes.convolution.thinning import windowed
from structopt_onnx.rewriting.cost import Cost, node_macs
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts


@dataclass(frozen=True, eq=False)
class Lowered:
    """What makes the input of a convolution that reads every so many positions of it.

    Parameters
    ----------
    ahead
        A convolution and pointwise operators behind it, in order, for this reader alone.
    slides
        Window of the convolution ahead.
    steps
        The lattice that is read.
    attributes
        What changes for the reader when the other positions are not made.
    """

    ahead: tuple[ir.Node, ...]
    slides: Window
    steps: tuple[int, ...]
    attributes: Mapping[str, AttributeValue]

    def costs(self, facts: Facts, target: str) -> tuple[Cost, Cost]:
        """Count the nodes ahead on a target: with all positions, and with those on the lattice."""
        whole = (1,) * len(self.steps)
        return self._cost(whole, facts, target), self._cost(self.steps, facts, target)

    def _cost(self, steps: tuple[int, ...], facts: Facts, target: str) -> Cost:
        conv = self.ahead[0]
        made = facts.concrete(conv.outputs[0])
        shapes = [facts.concrete(value) for value in conv.inputs]
        if made is not None:
            left = (-(-size // step) for size, step in zip(made[2:], steps, strict=True))
            made = (*made[:2], *left)
        macs = node_macs("Conv", conv.attributes, shapes, [made])
        cost = Cost(macs=macs, nodes=len(self.ahead))
        return replace(cost, seconds=TARGETS[target].seconds(cost))

    def nodes(self) -> tuple[list[NewNode], Fresh]:
        """Describe the nodes ahead on the lattice, and what they make."""
        strides = tuple(s * step for s, step in zip(self.slides.strides, self.steps, strict=True))
        conv, *between = self.ahead
        made = Fresh(f"{conv.outputs[0].name}_thinned")
        given = windowed(conv, replace(self.slides, strides=strides))
        nodes = [NewNode("Conv", tuple(conv.inputs), (made,), given)]
        for node in between:
            read, made = made, Fresh(f"{node.outputs[0].name}_thinned")
            inputs = (read, *node.inputs[1:])
            nodes.append(NewNode(node.op_type, inputs, (made,), node.attributes))
        return nodes, made


def lowered(data: ir.Value, attributes: Mapping[str, Any], facts: Facts) -> Lowered | None:
    """Look for a convolution ahead that need not make all positions; None without one.

    Parameters
    ----------
    data
        What the reader reads.
    attributes
        Those of the reader.
    facts
        Knows sizes.
    """
    names = ("kernel_shape", "strides", "dilations", "pads")
    slides, dims = Window(*(attributes[name] for name in names)), facts.dims(data)
    sizes = (None,) * slides.axes if dims is None else dims[2:]
    steps = slides.lattice(sizes)
    ahead = _ahead(data) if any(step > 1 for step in steps) else None
    first = None if ahead is None else window(ahead[0], facts)
    if ahead is None or first is None:
        return None
    left = slides.on_lattice(steps, sizes)
    moved = {"strides": left.strides, "dilations": left.dilations, "pads": left.pads}
    return Lowered(ahead, first, steps, moved)


def _ahead(value: ir.Value) -> tuple[ir.Node, ...] | None:
    """Return a convolution and the pointwise operators that make a value for one reader alone."""
    path: list[ir.Node] = []
    while True:
        node = value.producer()
        read = len(value.uses()) > 1 or value.is_graph_output()
        if node is None or node.domain != "" or read or len(node.outputs) > 1 or is_open(node):
            return None
        path.insert(0, node)
        if node.op_type == "Conv":
            return tuple(path)
        if node.op_type not in POINTWISE or node.inputs[0] is None:
            return None
        value = node.inputs[0]
