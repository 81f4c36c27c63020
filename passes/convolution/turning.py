"""A component of values in another axis order: which transposes go and come, and the edit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import integer
from structopt_onnx.passes.convolution.layout import (
    REDUCTIONS,
    Component,
    Layout,
    Perm,
    after,
    inverse,
    perm_of,
)

Value = ir.Value | Fresh


class Turning:
    """One component turned: each value ``v`` is held as the ``u`` with ``transpose(u, perm) = v``.

    Parameters
    ----------
    layout, component, perm
        What to turn, and how.
    """

    def __init__(self, layout: Layout, component: Component, perm: Perm) -> None:
        self.layout, self.component, self.perm = layout, component, perm
        self._exits = [node for node in component.exits if self._keeps_order(node)]
        self._inside = {*component.nodes, *self._exits}
        self._loops = {
            node
            for value in component.values
            if (node := value.producer()) is not None
            and self._turns(node) is not None
            and node.inputs[0] in component.values
        }
        made = {node.outputs[0] for node in (*component.nodes, *self._loops)}
        self._entries = [value for value in component.values if value not in made]
        self._leaving: list[ir.Node] = []
        self._exposed: list[ir.Value] = []
        for value in component.values:
            outside = [use.node for use in value.uses() if self._is_outside(use.node)]
            here = [node for node in outside if self._turns(node) is not None]
            self._leaving += here
            if value in made and (value.is_graph_output() or len(here) < len(outside)):
                self._exposed.append(value)
        self._dropped = [node for v in self._entries if (node := self._entrance(v)) is not None]
        self._turned: dict[ir.Value, Value] = {}
        self._nodes: list[NewNode] = []
        self._rewire: dict[ir.Value, ir.Value | Fresh] = {}

    def _is_outside(self, node: ir.Node) -> bool:
        return node not in self._inside and node not in self._loops

    def _turns(self, node: ir.Node) -> Perm | None:
        if node.graph is not self.layout.scope.graph:
            return None
        return perm_of(node, self.layout.facts)

    def _entrance(self, value: ir.Value) -> ir.Node | None:
        """Return the Transpose that makes a value, where nobody else will need it."""
        node = value.producer()
        if node is None or self._turns(node) is None or value.is_graph_output():
            return None
        needed = [use for use in value.uses() if self._is_outside(use.node)]
        kept = [use for use in needed if self._turns(use.node) is None]
        return None if kept else node

    @property
    def saved(self) -> int:
        """How many transposes fewer there are afterwards."""
        before = len({*self._dropped, *self._leaving, *self._loops})
        brought = sum(1 for value in self._entries if self._brings(value) is not None)
        left = sum(1 for node in self._leaving if not _is_plain(self._remaining(node)))
        kept = sum(1 for node in self._loops if not _is_plain(self._around(node)))
        return before - brought - left - kept - len(self._exposed)

    def _brings(self, value: ir.Value) -> Perm | None:
        """Return how an entry must be turned from its source, None where it need not be."""
        source = self._turns(producer) if (producer := value.producer()) is not None else None
        perm = after(source, inverse(self.perm)) if source else inverse(self.perm)
        return None if _is_plain(perm) else perm

    def _remaining(self, node: ir.Node) -> Perm:
        return after(self.perm, self._turns(node) or ())

    def _around(self, node: ir.Node) -> Perm:
        """Return what a transpose within the component is to turned values."""
        return after(self._remaining(node), inverse(self.perm))

    def _keeps_order(self, node: ir.Node) -> bool:
        axes = self.layout.axes(node) or ()
        kept = [self.perm[axis] for axis in range(len(self.perm)) if axis not in axes]
        return kept == sorted(kept)

    def patch(self) -> Patch:
        """Describe the edit."""
        doors = {node: v for v in self._entries if (node := v.producer()) and self._turns(node)}
        for value in self._entries:
            if value not in doors.values():
                self._turned[value] = self._transpose(value, inverse(self.perm))
        order = {node: index for index, node in enumerate(self.layout.scope.graph)}
        gone = {*self._dropped, *self._inside, *self._loops, *self._leaving}
        for node in sorted(gone | set(doors), key=order.__getitem__):
            if node in doors:
                self._enter(node, doors[node])
            elif node in self._inside:
                self._take(node)
            elif node in self._loops:
                self._turned[node.outputs[0]] = self._between(node)
            else:
                self._leave(node)
        for value in self._exposed:
            fresh = self._transpose(self._turned[value], self.perm, value.name)
            self._rewire[value] = fresh
        removed = tuple(sorted(gone, key=order.__getitem__))
        turns = len(gone) - len(self._inside)
        title = f"{self.saved} of {turns} transposes cancelled"
        title += f" around {len(self._inside)} operators"
        edit = Edit(removed, tuple(self._nodes), (), self._rewire)
        return Patch(title, removed[0], {self.layout.scope: edit})

    def _transpose(self, source: Value, perm: Perm, name: str | None = None) -> Fresh:
        fresh = Fresh(name or f"{source.name}_turned")
        self._nodes.append(NewNode("Transpose", (source,), (fresh,), {"perm": perm}))
        return fresh

    def _enter(self, node: ir.Node, value: ir.Value) -> None:
        """Take a value from before the transpose that makes it."""
        source, perm = node.inputs[0], self._brings(value)
        if source is not None:
            read = self._rewire.get(source, source)
            self._turned[value] = read if perm is None else self._transpose(read, perm)

    def _between(self, node: ir.Node) -> Value:
        """Describe a transpose of one value of the component into another."""
        value, perm = node.inputs[0], self._around(node)
        source = self._turned[value] if value is not None else Fresh("missing")
        return source if _is_plain(perm) else self._transpose(source, perm)

    def _leave(self, node: ir.Node) -> None:
        value, result = node.inputs[0], node.outputs[0]
        if value is None:
            return
        perm, source = self._remaining(node), self._turned[value]
        taken = set(self._rewire.values())
        if not _is_plain(perm):
            self._rewire[result] = self._transpose(source, perm, result.name)
        elif result.is_graph_output() and (isinstance(source, ir.Value) or source in taken):
            fresh = Fresh(result.name or "output")
            self._nodes.append(NewNode("Identity", (source,), (fresh,)))
            self._rewire[result] = fresh
        else:
            self._rewire[result] = source

    def _take(self, node: ir.Node) -> None:
        moving = self.layout.operands(node) or []
        inputs: list[ir.Value | Fresh | None] = list(node.inputs)
        for index, value in enumerate(node.inputs):
            if value is not None and index in moving:
                inputs[index] = self._turned[value]
            elif value is not None and node.op_type not in REDUCTIONS | {"Pad"}:
                inputs[index] = self._constant(value)
        attributes: dict[str, AttributeValue] = dict(node.attributes)
        rank = len(self.perm)
        if node.op_type in {"Concat", "Softmax", "LogSoftmax"}:
            attributes["axis"] = self.perm[integer(node, "axis", -1) % rank]
        elif node.op_type in REDUCTIONS:
            axes = tuple(sorted(self.perm[axis] for axis in self.layout.axes(node) or ()))
            if len(inputs) > 1:
                inputs[1] = Fresh(f"{node.outputs[0].name}_axes", ir.tensor(np.array(axes)))
            else:
                attributes["axes"] = axes
        elif node.op_type == "Pad":
            pads = np.asarray(self.layout.facts.array(node.inputs[1])).reshape(2, rank)
            turned = pads[:, list(inverse(self.perm))].reshape(-1)
            inputs[1] = Fresh(f"{node.outputs[0].name}_pads", ir.tensor(turned))
        fresh = Fresh(node.outputs[0].name or "turned")
        self._nodes.append(NewNode(node.op_type, tuple(inputs), (fresh,), attributes))
        if node in self._exits:
            self._rewire[node.outputs[0]] = fresh
        else:
            self._turned[node.outputs[0]] = fresh

    def _constant(self, value: ir.Value) -> Value:
        array = self.layout.facts.array(value)
        if array is None or array.ndim == 0 or not self.layout.is_constant(value):
            return self._rewire.get(value, value)
        if value not in self._turned:
            rank = len(self.perm)
            whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
            turned = np.ascontiguousarray(whole.transpose(inverse(self.perm)))
            self._turned[value] = Fresh(f"{value.name}_turned", ir.tensor(turned))
        return self._turned[value]


def _is_plain(perm: Perm) -> bool:
    return perm == tuple(range(len(perm)))
