"""Emission of a recurrence as ONNX's Scan, for cells that no operator covers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.collecting import Rewiring, Stack, readers
from structopt_onnx.passes.recurrence.plumbing import Plumbing
from structopt_onnx.passes.recurrence.readings import reading
from structopt_onnx.passes.recurrence.removal import is_read, read_outside, with_orphans
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.sizes import Sizes
    from structopt_onnx.passes.recurrence.slices import Unrolled


_FEWEST = 4


@dataclass(frozen=True)
class Scanned:
    """An unrolled recurrence whose slice becomes the body of a Scan.

    Parameters
    ----------
    found
        The recurrence.
    """

    found: Unrolled

    def patch(self, scope: Scope, sizes: Sizes) -> Patch | Refusal | None:
        """Describe the edit; None where a step reads nothing of its own, which a Scan must."""
        found = self.found
        where = found.chain.products[0].name or ""
        if not found.inputs:
            return None
        if found.length < _FEWEST:
            return Refusal("too-few-steps", f"{found.length} steps", where)
        for state, value in found.states.items():
            first = found.first(state)
            before, after = sizes.dims(first), sizes.dims(value)
            if before is None or before != after:
                detail = f"'{first.name}' is {before}, '{value.name}' is {after}"
                return Refusal("state-changes-shape", detail, where)
        plumbing, gone = Plumbing(sizes.opset), frozenset(found.all_nodes())
        handed_out = self._handed_out(gone)
        body = self._body(handed_out)
        fed = [self._fed(value, plumbing, sizes) for value in found.inputs]
        inputs = [*(found.first(state) for state in found.states), *(value for value, _, _ in fed)]
        names = [f"{value.name}_end" for value in found.states.values()]
        names += [f"{value.name}_all" for value in handed_out]
        attributes: dict[str, AttributeValue] = {
            "num_scan_inputs": len(fed),
            "scan_input_axes": tuple(axis for _, axis, _ in fed),
            "scan_input_directions": tuple(int(backwards) for _, _, backwards in fed),
            "body": ir.AttrGraph("body", body),
        }
        made = plumbing.nodes_outputs("Scan", inputs, names, attributes)
        rewiring = Rewiring(plumbing)
        last, collected = found.length - 1, dict[ir.Node, None]()
        for value, end in zip(found.states.values(), made, strict=False):
            old = found.series(value)[last]
            if old is not None and value not in handed_out and is_read(old, gone):
                rewiring.put(old, end)
        for value, stacked in zip(handed_out, made[len(found.states) :], strict=True):
            nodes = self._hand_out(value, stacked, rewiring, gone, sizes)
            collected.update(dict.fromkeys(nodes))
        edit = Edit((), tuple(plumbing.nodes), rewire=rewiring.changes)
        removed = with_orphans((*found.all_nodes(), *collected), edit.operands(), edit.rewire)
        title = f"{found.length} steps of {len(found.nodes)} nodes become a Scan"
        return Patch(title, found.chain.products[0], {scope: replace(edit, remove=removed)})

    def _handed_out(self, gone: frozenset[ir.Node]) -> tuple[ir.Value, ...]:
        """Return the values of the first slice that are read in other steps than the last."""
        states, last = set(self.found.states.values()), self.found.length - 1
        wanted = {
            value: None
            for value, step, _ in read_outside(self.found, gone)
            if step != last or value not in states
        }
        return tuple(wanted)

    def _fed(self, value: ir.Value, plumbing: Plumbing, sizes: Sizes) -> tuple[Operand, int, bool]:
        """Return a tensor that holds what each step reads, the axis of the steps, the direction."""
        series = tuple(v for v in self.found.series(value) if v is not None)
        known = reading(series, sizes)
        if known is None:
            steps = [plumbing.unsqueeze(v, (0,), f"{v.name}_step") for v in series]
            return plumbing.concat(steps, 0, f"{value.name}_by_step"), 0, False
        if known.axis is not None and (known.whole or known.reversed):
            return known.source, known.axis, known.reversed
        return known.stacked(plumbing, sizes), 0, False

    def _body(self, handed_out: Sequence[ir.Value]) -> ir.Graph:
        found = self.found
        made: dict[ir.Value, ir.Value] = {}
        for value in (*found.states, *found.inputs):
            real = found.first(value)
            made[value] = ir.Value(name=f"{real.name}_in", type=real.type)
        nodes = [self._copy(node, made) for node in found.nodes]
        outputs = [made[value] for value in found.states.values()]
        for value in handed_out:
            output = made[value]
            if output in outputs:  # a value can't be an output twice
                copy = ir.Node("", "Identity", [output], name=f"{value.name}_out")
                copy.outputs[0].name = f"{value.name}_out"
                nodes.append(copy)
                output = copy.outputs[0]
            outputs.append(output)
        inputs = [made[value] for value in (*found.states, *found.inputs)]
        return ir.Graph(inputs, outputs, nodes=nodes, name="step")

    def _hand_out(
        self,
        value: ir.Value,
        stacked: Fresh,
        rewiring: Rewiring,
        gone: frozenset[ir.Node],
        sizes: Sizes,
    ) -> list[ir.Node]:
        """Give those who read a value of single steps their entries; return what then goes."""
        series = self.found.series(value)
        wanted = readers(series, gone, sizes)
        stack = Stack(
            stacked,
            tuple(range(self.found.length)),
            tuple((sizes.dims(value) or ())[1:]),
            value.name or "y",
        )
        for collection in wanted.collections:
            rewiring.put(collection.result, stack.collect(collection, rewiring.plumbing))
        stack.spread(series, wanted.single, rewiring)
        return [node for collection in wanted.collections for node in collection.nodes]

    def _copy(self, node: ir.Node, made: dict[ir.Value, ir.Value]) -> ir.Node:
        """Return a node of the body, and note what it makes."""
        inputs = [
            None if value is None else made.get(value, self.found.first(value))
            for value in self.found.reads(node)
        ]
        attributes = list(node.attributes.values())
        outputs = [ir.Value(name=output.name, type=output.type) for output in node.outputs]
        copy = ir.Node(
            node.domain, node.op_type, inputs, attributes, outputs=outputs, name=node.name
        )
        made.update(zip(node.outputs, copy.outputs, strict=True))
        return copy
