"""The edit that takes lanes out of the values and weights of a region."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.sparsity.lanes import Change, Offset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.passes.sparsity.lanes import Cut, Slicing, Table

_HOLDERS = {"Constant", "ConstantOfShape"}

Key = tuple[ir.Value, tuple[tuple[int, bytes], ...]]


def regions(table: Table, cut: Cut) -> list[list[ir.Node]]:
    """Group the nodes that make or read values that lose lanes, connected through such values."""
    shrinking = {v for v, lanes in table.lanes.items() if not cut.kept(lanes.ids).all()}
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in table.scope.graph:
        joined = [node]
        touched = [v for v in (*node.inputs, *node.outputs) if v in shrinking]
        if not touched:
            continue
        for value in touched:
            for other in (value.producer(), *(use.node for use in value.uses())):
                if other in groups and groups[other] is not joined:
                    merged = groups[other]
                    merged += joined
                    for member in joined:
                        groups[member] = merged
                    joined = merged
        groups[node] = joined
    order = {node: index for index, node in enumerate(table.scope.graph)}
    distinct = {id(group): group for group in groups.values()}
    return [sorted(set(group), key=order.__getitem__) for group in distinct.values()]


def without(table: Table, cut: Cut, region: Sequence[ir.Node]) -> Patch:
    """Describe a region without the lanes that are lost."""
    edit = _Cutting(table, cut)
    for node in region:
        edit.take(node)
    counts = ", ".join(f"{number} of '{name}'" for name, number in edit.counts.items())
    title = f"dead channels taken out: {counts}"
    remove = (*edit.idle(), *edit.taken)
    where = Edit(remove, tuple(edit.nodes), (), edit.rewire)
    return Patch(title, region[-1], {table.scope: where})


class _Cutting:
    def __init__(self, table: Table, cut: Cut) -> None:
        self.table, self.cut = table, cut
        self.taken: dict[ir.Node, None] = {}
        self.nodes: list[NewNode] = []
        self.rewire: dict[ir.Value, ir.Value | Fresh] = {}
        self.counts: dict[str, int] = {}
        self._made: dict[ir.Value, Fresh] = {}
        self._stored: dict[Key, ir.Value | Fresh] = {}
        self._sums: dict[ir.Node, dict[int, Fresh]] = {}

    def take(self, node: ir.Node) -> None:
        """Rewrite a node; those that it reads come before it."""
        if node in self.taken:
            return
        self.taken[node] = None
        change = self.table.changes[node](self.cut) if node in self.table.changes else Change()
        inputs = self._operands(node, change)
        attributes: dict[str, AttributeValue] = {**node.attributes, **change.attributes}
        for name in change.dropped:
            attributes.pop(name, None)
        named = max(k for k, output in enumerate(node.outputs, 1) if output.name or k == 1)
        outputs = tuple(Fresh(output.name or "unused") for output in node.outputs[:named])
        self.nodes.append(NewNode(node.op_type, tuple(inputs), outputs, attributes))
        follower = None if change.offset is None else self._grow(node, change.offset)
        for old_output, fresh in zip(node.outputs, outputs, strict=False):
            self._made[old_output] = fresh
            lanes = self.table.lanes.get(old_output)
            lost = 0 if lanes is None else int((~self.cut.kept(lanes.ids)).sum())
            if not lost:
                self.rewire[old_output] = fresh
            elif node in self.table.makers and old_output is node.outputs[0]:
                self.counts[node.name or node.outputs[0].name or node.op_type] = lost
        if follower is not None:
            self.take(follower)

    def _operands(self, node: ir.Node, change: Change) -> list[ir.Value | Fresh | None]:
        inputs: list[ir.Value | Fresh | None] = [
            None if value is None else self._made.get(value, value) for value in node.inputs
        ]
        slicings: dict[int, list[Slicing]] = {}
        for slicing in self.table.slicings.get(node, ()):
            slicings.setdefault(slicing.index, []).append(slicing)
        for index in sorted({*slicings, *change.operands}):
            inputs += [None] * (index + 1 - len(inputs))
            old = node.inputs[index] if index < len(node.inputs) else None
            array = change.operands.get(index)
            inputs[index] = self._sliced(node, old, array, slicings.get(index, []))
        if change.padded is not None:
            index, pads = change.padded
            inputs[index] = self._padded(inputs[index], pads)
        for index, constant in self._sums.get(node, {}).items():
            inputs[index] = constant
        return inputs

    def _padded(self, operand: ir.Value | Fresh | None, pads: tuple[int, ...]) -> Fresh:
        name = "operand" if operand is None else operand.name
        sizes = Fresh(f"{name}_pads", ir.tensor(np.array(pads, np.int64)))
        padded = Fresh(f"{name}_padded")
        self.nodes.append(NewNode("Pad", (operand, sizes), (padded,)))
        return padded

    def idle(self) -> list[ir.Node]:
        """Return the nodes that only held or filled what was cut."""
        read = {operand for node in self.nodes for operand in node.inputs}
        inputs = (value for node in self.taken for value in node.inputs if value is not None)
        found: dict[ir.Node, None] = {}
        for value in inputs:
            producer = value.producer()
            if producer is None or value in read or producer.domain != "":
                continue
            only = all(use.node in self.taken for use in value.uses())
            if (
                only
                and producer.op_type in _HOLDERS
                and producer.graph is self.table.scope.graph
                and not value.is_graph_output()
            ):
                found[producer] = None
        return list(found)

    def _grow(self, node: ir.Node, offset: Offset) -> ir.Node | None:
        """Add numbers to a result: by the sum that reads it where it is one, else by a new one."""
        kept = self.cut.kept(offset.ids)
        numbers = offset.numbers.reshape((-1,) + (1,) * (-1 - offset.axis))
        uses = node.outputs[0].uses()
        for use in uses:
            stored = use.node.inputs[1 - use.idx] if use.node.op_type == "Add" else None
            array = self.table.facts.array(stored)
            if (
                len(uses) == 1
                and stored is not None
                and array is not None
                and array.size <= len(kept)
            ):
                whole = (array.astype(np.float64) + numbers).astype(array.dtype)
                fresh = Fresh(f"{stored.name}_cut", ir.tensor(_kept(whole, [(offset.axis, kept)])))
                self._sums[use.node] = {1 - use.idx: fresh}
                return use.node
        product = self.nodes[-1]
        (result,) = product.outputs
        plain = Fresh(f"{result.name}_without_bias")
        dtype = (self.table.facts.dtype(node.outputs[0]) or ir.DataType.FLOAT).numpy()
        constant = Fresh(
            f"{result.name}_bias", ir.tensor(_kept(numbers, [(offset.axis, kept)]).astype(dtype))
        )
        self.nodes[-1:] = [
            replace(product, outputs=(plain,)),
            NewNode("Add", (plain, constant), (result,)),
        ]
        return None

    def _sliced(
        self,
        node: ir.Node,
        value: ir.Value | None,
        array: npt.NDArray[Any] | None,
        slicings: Sequence[Slicing],
    ) -> ir.Value | Fresh:
        """Return a stored operand without what is lost, itself where nothing is."""
        masks = [(slicing.axis, self.cut.kept(slicing.ids)) for slicing in slicings]
        masks = [(axis, mask) for axis, mask in masks if not mask.all()]
        name = f"{node.outputs[0].name}_operand" if value is None else f"{value.name}_cut"
        if array is None and value is not None:
            if not masks:
                return value
            key = (value, tuple((axis, mask.tobytes()) for axis, mask in masks))
            if key not in self._stored:
                self._stored[key] = self._smaller(value, masks, name)
            return self._stored[key]
        if array is None:
            raise ValueError(name)  # a slicing is of an operand, and a change has its own
        return Fresh(name, ir.tensor(_kept(array, masks)))

    def _smaller(
        self, value: ir.Value, masks: list[tuple[int, npt.NDArray[Any]]], name: str
    ) -> Fresh:
        producer = value.producer()
        array = np.asarray(self.table.facts.array(value))
        if producer is None or producer.op_type != "ConstantOfShape":
            return Fresh(name, ir.tensor(_kept(array, masks)))
        dims = list(array.shape)
        for axis, mask in masks:
            dims[axis] = int(mask.sum())
        shape = Fresh(f"{name}_shape", ir.tensor(np.array(dims, np.int64)))
        filled = Fresh(name)
        self.nodes.append(
            NewNode("ConstantOfShape", (shape,), (filled,), dict(producer.attributes))
        )
        return filled


def _kept(array: npt.NDArray[Any], masks: list[tuple[int, npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    for axis, mask in masks:
        if array.shape[axis] == len(mask):
            array = np.compress(mask, array, axis)
    return np.ascontiguousarray(array)
