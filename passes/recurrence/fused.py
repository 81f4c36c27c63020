"""Emission of a recurrence as ONNX's RNN, GRU or LSTM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.model.edit import Edit, Fresh
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.collecting import Rewiring, Stack, readers
from structopt_onnx.passes.recurrence.operands import attributes, inputs, peepholes, weights
from structopt_onnx.passes.recurrence.plumbing import Plumbing
from structopt_onnx.passes.recurrence.readings import reading
from structopt_onnx.passes.recurrence.removal import is_read, read_outside, spared, with_orphans
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
    from structopt_onnx.passes.recurrence.cells import Cell
    from structopt_onnx.passes.recurrence.dims import Dim
    from structopt_onnx.passes.recurrence.first_step import FirstStep
    from structopt_onnx.passes.recurrence.readings import Reading
    from structopt_onnx.passes.recurrence.sizes import Sizes
    from structopt_onnx.passes.recurrence.slices import Unrolled

_STEP_RANK = 2


@dataclass(frozen=True)
class Fused:
    """An unrolled recurrence whose slice is a cell of ONNX's.

    Parameters
    ----------
    found
        The recurrence.
    algebra
        The forms of its slice.
    cell
        The cell.
    before
        A step before the first slice that an exporter folded.
    """

    found: Unrolled
    algebra: SliceAlgebra
    cell: Cell
    before: FirstStep | None = None

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.found.length + (self.before is not None)

    def readable(self) -> bool:
        """Whether each input is read off one tensor by all steps."""
        return all(self.algebra.reading(value) is not None for value in inputs(self.cell))

    def is_single(self) -> bool:
        """Whether the cell reads an input, in the precision that runtimes compute it in."""
        tensors = (self.algebra.facts.tensor(v) for n in self.found.nodes for v in n.inputs)
        kinds = {t.dtype.name for t in tensors if t is not None and t.dtype.is_floating_point()}
        return kinds == {"FLOAT"} and any(gate.inputs for gate in self.cell.gates)

    def _reading(self, value: ir.Value, sizes: Sizes) -> Reading | None:
        if self.before is None:
            return self.algebra.reading(value)
        return reading((self.before.inputs[value], *(self.algebra.series(value) or ())), sizes)

    def _outputs(self) -> tuple[ir.Value | None, ...]:
        """Return the hidden state that each step makes."""
        series = self.found.series(self.found.states[self.cell.hidden])
        return series if self.before is None else (self.before.hidden, *series)

    def covers_reads(self) -> bool:
        """Whether everything that is read of the slices is something the operator hands out."""
        found, cell = self.found, self.cell
        hidden, last = found.states[cell.hidden], found.length - 1
        memory = None if cell.cell is None else found.states[cell.cell]
        gone = frozenset(found.all_nodes()) - spared(found, hidden)
        return all(
            value is hidden or (value is memory and step == last)
            for value, step, _ in read_outside(found, gone)
        )

    def patch(self, scope: Scope, facts: Facts, sizes: Sizes) -> Patch | Refusal:
        """Describe the edit."""
        found, cell = self.found, self.cell
        gone = frozenset(found.all_nodes()) - spared(found, found.states[cell.hidden])
        refusal = self._unfit(sizes)
        if refusal is not None:
            return refusal
        plumbing = Plumbing(sizes.opset)
        backwards = self._backwards(sizes)
        stacked = [
            self._stacked(v, plumbing, sizes, backwards=backwards) for v in inputs(self.cell)
        ]
        x = plumbing.concat(stacked, 2, "x_joined")
        name = found.states[cell.hidden].name or "h"
        series = self._outputs()
        wanted = readers(series, gone, sizes)
        outputs = [f"{name}_all", f"{name}_last"]
        operands: list[Operand] = [x, *weights(cell, self.algebra.sizes.dims), None]
        operands.append(self._initial(cell.hidden, plumbing, facts, sizes, x))
        if cell.cell is not None:
            operands.append(self._initial(cell.cell, plumbing, facts, sizes, x))
            operands.append(peepholes(cell))
            outputs.append(f"{found.states[cell.cell].name or 'c'}_last")
        while operands[-1] is None:
            operands.pop()
        made = plumbing.nodes_outputs(
            cell.op_type, operands, outputs, attributes(cell, backwards=backwards)
        )
        rewiring = Rewiring(plumbing)
        last = self.length - 1
        if wanted.collections or set(wanted.single) - {last}:
            order = tuple(range(self.length))
            stack = Stack(
                plumbing.squeeze(made[0], (1,), f"{name}_by_step"),
                order[::-1] if backwards else order,
                (cell.width,),
                name,
            )
            for collection in wanted.collections:
                rewiring.put(collection.result, stack.collect(collection, plumbing))
            single = [step for step in wanted.single if step != last or len(wanted.single) > 1]
            stack.spread(series, single, rewiring)
        if wanted.single == (last,) and (end := series[last]) is not None:
            rewiring.put(end, plumbing.squeeze(made[1], (0,), f"{name}_end"))
        if cell.cell is not None:
            end = found.series(found.states[cell.cell])[-1]
            if end is not None and is_read(end, gone):
                rewiring.put(end, plumbing.squeeze(made[2], (0,), "c_end"))
        collected = tuple(n for c in wanted.collections for n in c.nodes)
        edit = Edit((), tuple(plumbing.nodes), rewire=rewiring.changes)
        slices = [node for node in found.all_nodes() if node in gone]
        removed = with_orphans((*slices, *dict.fromkeys(collected)), edit.operands(), edit.rewire)
        title = f"{self.length} steps become {cell.op_type} of {cell.width} units"
        return Patch(title, found.chain.products[0], {scope: replace(edit, remove=removed)})

    def _unfit(self, sizes: Sizes) -> Refusal | None:
        found, cell = self.found, self.cell
        where = found.chain.products[0].name or ""
        batch = self._batch(sizes)
        if batch is None:
            return Refusal("state-changes-shape", "inputs of different batches", where)
        if self.before is not None:
            return None
        for state in (cell.hidden, cell.cell):
            if state is None:
                continue
            first = found.first(state)
            dims = sizes.dims(first)
            if dims is None or len(dims) != _STEP_RANK or dims[0] not in (1, batch):
                shape = None if dims is None else [d if isinstance(d, int) else "?" for d in dims]
                detail = f"first state '{first.name}' is {shape}"
                return Refusal("state-changes-shape", detail, where)
        return None

    def _batch(self, sizes: Sizes) -> Dim | None:
        """Return the batch size of the inputs, where all have the same in all steps."""
        batches: list[Dim] = []
        for value in inputs(self.cell):
            one = self.algebra.reading(value) is not None
            for read in (value,) if one else self.algebra.series(value) or (value,):
                dims = sizes.dims(read)
                if dims is None or len(dims) != _STEP_RANK:
                    return None
                batches.append(dims[0])
        return batches[0] if len(set(batches)) == 1 else None

    def _backwards(self, sizes: Sizes) -> bool:
        readings = [self._reading(value, sizes) for value in inputs(self.cell)]
        return bool(readings) and all(r is not None and r.reversed for r in readings)

    def _stacked(
        self, value: ir.Value, plumbing: Plumbing, sizes: Sizes, *, backwards: bool
    ) -> Operand:
        found = self._reading(value, sizes)
        if found is not None:
            return found.stacked(plumbing, sizes, backwards=backwards)
        series = self.algebra.series(value) or ()
        steps = [plumbing.unsqueeze(v, (0,), f"{v.name}_step") for v in series]
        return plumbing.concat(steps, 0, f"{value.name}_by_step")

    def _initial(
        self, state: ir.Value, plumbing: Plumbing, facts: Facts, sizes: Sizes, x: Operand
    ) -> Fresh | None:
        """Return the first state as the operator takes it; None for zeros, its default."""
        state = self.found.first(state)
        if self.before is not None or is_zero(state, facts):
            return None
        dims = sizes.dims(state) or ()
        first = plumbing.unsqueeze(state, (0,), f"{state.name}_first")
        if dims[0] == self._batch(sizes):
            return first
        shape = plumbing.node("Shape", (x,), "x_shape")
        batch = plumbing.take(shape, (1,), 0, "batch")
        one, width = plumbing.integers((1,), "one"), plumbing.integers((self.cell.width,), "hidden")
        target = plumbing.concat((one, batch, width), 0, "state_shape")
        return plumbing.node("Expand", (first, target), f"{state.name}_spread")


def is_zero(value: ir.Value, facts: Facts) -> bool:
    """Whether a value is all zeros in every run, whatever its size."""
    array = facts.array(value)
    if array is not None:
        return not array.any()
    node = value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    if node.op_type in {"Expand", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Tile"}:
        return node.inputs[0] is not None and is_zero(node.inputs[0], facts)
    return False
