"""The edit that makes values on their lattices only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch

if TYPE_CHECKING:
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.convolution.demand import Demand, Lattice
    from structopt_onnx.passes.convolution.geometry import Window

# Of one element these pools are the element; a norm is not.
_IDENTITIES = {"AveragePool", "MaxPool", "Slice"}


def regions(scope: Scope, demand: Demand) -> list[list[ir.Node]]:
    """Group the nodes that make or read thinned values, connected through such values."""
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in scope.graph:
        values = [v for v in (*node.inputs, *node.outputs[:1]) if demand.is_thinned(v)]
        if not values:
            continue
        joined = [node]
        for value in values:
            producer = value.producer() if value is not None else None
            if producer is not None and producer in groups and groups[producer] is not joined:
                merged = groups[producer]
                merged += joined
                joined = merged
        for member in joined:
            groups[member] = joined
    order = {node: index for index, node in enumerate(scope.graph)}
    distinct = {id(group): group for group in groups.values()}
    return [sorted(group, key=order.__getitem__) for group in distinct.values()]


def thinned(scope: Scope, demand: Demand, region: list[ir.Node]) -> Patch:
    """Describe a region with its values on their lattices."""
    edit = _Thinning(demand)
    for node in region:
        edit.take(node)
    strides = ", ".join("x".join(str(s) for s in step) for step in sorted(edit.steps))
    names = ", ".join(f"'{name}'" for name in sorted(edit.absorbers))
    title = f"stride {strides} moved up into {names or 'pointwise operators'}"
    last = region[-1]
    return Patch(title, last, {scope: Edit(tuple(region), tuple(edit.nodes), (), edit.rewire)})


def windowed(node: ir.Node, slides: Window) -> dict[str, AttributeValue]:
    """Return the attributes of a convolution or pool with another window of whole places."""
    attributes: dict[str, AttributeValue] = dict(node.attributes)
    attributes.pop("auto_pad", None)
    attributes.pop("ceil_mode", None)  # no window is partial, or nothing was absorbed
    attributes |= {"strides": slides.strides, "pads": slides.pads}
    if "dilations" in attributes:
        attributes["dilations"] = slides.dilations
    return attributes


def _slicing(strides: Lattice, name: str) -> list[ir.Value | Fresh | None]:
    """Return what a Slice reads that takes every so many positions of each spatial axis."""
    axes = [axis for axis, stride in enumerate(strides) if stride > 1] or [0]
    count = len(axes)
    bounds = {
        "starts": [0] * count,
        "ends": [np.iinfo(np.int64).max] * count,
        "axes": [axis + 2 for axis in axes],
        "steps": [strides[axis] for axis in axes],
    }
    return [Fresh(f"{name}_{k}", ir.tensor(np.array(v, np.int64))) for k, v in bounds.items()]


class _Thinning:
    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.nodes: list[NewNode] = []
        self.rewire: dict[ir.Value, ir.Value | Fresh] = {}
        self.steps: set[Lattice] = set()
        self.absorbers: set[str] = set()
        self._made: dict[ir.Value, ir.Value | Fresh] = {}
        self._subsampled: dict[tuple[ir.Value, Lattice], Fresh] = {}

    def take(self, node: ir.Node) -> None:
        output = node.outputs[0]
        slides = self.demand.windows.get(node)
        inputs = [None if v is None else self._made.get(v, v) for v in node.inputs]
        if slides is None:
            attributes: dict[str, AttributeValue] = dict(node.attributes)
            steps = self.demand.lattice(output)
            for index in self.demand.pointwise.operands(node) or ():
                inputs[index] = self._on_lattice(node.inputs[index], steps)
        else:
            ones = (1,) * slides.axes
            read, made = (self.demand.lattice(v) or ones for v in (node.inputs[0], output))
            whole = tuple(s * m for s, m in zip(slides.strides, made, strict=True))
            slides = replace(slides, strides=whole).on_lattice(read, self.demand.sizes(node))
            if slides.is_point and slides.strides == ones and node.op_type in _IDENTITIES:
                source = inputs[0]
                if source is not None and self._stands_for(output, source):
                    return
            if node.op_type == "Slice":
                inputs[1:] = _slicing(slides.strides, output.name or "thinned")
                attributes = {}
            else:
                attributes = windowed(node, slides)
            if made != ones:
                self.steps.add(made)
                self.absorbers.add(node.name or node.op_type)
        fresh = Fresh(output.name or "thinned")
        self.nodes.append(NewNode(node.op_type, tuple(inputs), (fresh,), attributes))
        self._made[output] = fresh
        if not self.demand.is_thinned(output):
            self.rewire[output] = fresh

    def _stands_for(self, output: ir.Value, source: ir.Value | Fresh) -> bool:
        """Let the input of a pool that has become an identity be its output."""
        if self.demand.is_thinned(output):
            self._made[output] = source
            return True
        taken = output.is_graph_output() and source in self.rewire.values()
        if taken or not isinstance(source, Fresh):
            return False
        self._made[output] = self.rewire[output] = source
        return True

    def _on_lattice(self, value: ir.Value | None, steps: Lattice) -> ir.Value | Fresh | None:
        if value is None:
            return None
        source = self._made.get(value, value)
        present = self.demand.lattice(value) or (1,) * len(steps)
        missing = tuple(s // p for s, p in zip(steps, present, strict=True))
        if set(missing) == {1}:
            return source
        if (value, missing) not in self._subsampled:
            fresh = Fresh(f"{value.name}_thinned")
            points: dict[str, AttributeValue] = {
                "kernel_shape": (1,) * len(steps),
                "strides": missing,
            }
            self.nodes.append(NewNode("MaxPool", (source,), (fresh,), points))
            self._subsampled[value, missing] = fresh
        return self._subsampled[value, missing]
