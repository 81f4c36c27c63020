"""fuse-recurrent-loop: a Scan or Loop whose body is a cell becomes RNN, GRU or LSTM.

What it does
    Reads the body as one step over one sequence and matches its algebra with the cells of ONNX's
    operators: states carried from step to step, one entry of the sequence per step, the output of
    every step stacked. The whole loop, in either direction, becomes one operator; initial states
    that are zeros are left out.

Why
    A loop runs its body node by node, and a target without loops can't take it at all.

Leaves alone
    Bodies that are no cell, that read two sequences, stack anything but the cell's output, or
    compute in other types than float32; loops that may stop early or whose number of turns is not
    known to be the sequence's length; states whose batch is not known to be the sequence's.

Exactness
    ROUNDING: the fused operators add in another order and have their own sigmoid and tanh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
from structopt_onnx.passes.recurrence.cells import cell
from structopt_onnx.passes.recurrence.gates import States
from structopt_onnx.passes.recurrence.loop_body import BodySizes, LoopBody, read_loop, read_scan
from structopt_onnx.passes.recurrence.operands import attributes, inputs, peepholes, weights
from structopt_onnx.passes.recurrence.plumbing import Plumbing
from structopt_onnx.passes.recurrence.removal import with_orphans
from structopt_onnx.passes.recurrence.rules import NoForm
from structopt_onnx.passes.recurrence.sizes import Sizes
from structopt_onnx.passes.recurrence.zero_states import is_zero
from structopt_onnx.rewriting.passes import NodePass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from structopt_onnx.model.edit import Fresh, Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.cells import Cell
    from structopt_onnx.passes.recurrence.dims import Dims

_STEP_RANK = 2
# Scan had a batch axis and lengths of its own before.
_FIRST_SCAN_OPSET = 9


@dataclass(frozen=True, eq=False)
class Found:
    """A loop, its body as a step, and the cell that it is."""

    node: ir.Node
    body: LoopBody
    cell: Cell
    opset: int
    sequence: Dims


@dataclass(frozen=True)
class FuseRecurrentLoop(NodePass[Found]):
    """Options of fuse-recurrent-loop.

    Parameters
    ----------
    target
        Where the model will run; nothing is fused where it lacks the operator.
    """

    name: ClassVar[str] = "fuse-recurrent-loop"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Scan", "Loop"})
    canonical: ClassVar[bool] = True  # the cost of a loop counts its body once
    refusals: ClassVar[dict[str, str]] = {
        "may-stop-early": "the Loop's condition may end it before the sequence does",
        "length-differs": "the Loop is not known to make as many turns as the sequence has steps",
        "batch-differs": "a first state is not known to have the batch of the sequence",
    }

    target: str = "cpu"

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Found | Refusal | None:
        """Read a loop's body and match its algebra."""
        opset = facts.opset(scope) or 0
        if node.op_type == "Scan" and opset < _FIRST_SCAN_OPSET:
            return None
        sizes = Sizes(scope.graph, facts)
        body = read_scan(node) if node.op_type == "Scan" else read_loop(node, facts, sizes)
        if not isinstance(body, LoopBody):
            return body
        known = _cell(body, node, facts, sizes)
        if known is None or not _hands_out(body, known):
            return None
        if not TARGETS[self.target].supports(known.op_type, opset, ir.DataType.FLOAT):
            return None
        sequence = sizes.dims(body.sequence) or ()
        for value in body.initial.values():
            if (sizes.dims(value) or ())[:1] != sequence[1:2]:
                detail = f"'{value.name}' and '{body.sequence.name}'"
                return Refusal("batch-differs", detail, node.name or "")
        return Found(node, body, known, opset, sequence)

    def rewrite(self, scope: Scope, facts: Facts, match: Found) -> Patch:
        """Describe the edit."""
        node, body, known = match.node, match.body, match.cell
        plumbing = Plumbing(match.opset)
        name = node.name or node.op_type
        operands: list[Operand] = [body.sequence, *weights(known, lambda _: match.sequence), None]
        for state in (known.hidden, known.cell):
            value = None if state is None else body.initial[state]
            if value is not None:
                zero = is_zero(value, facts)
                operands.append(None if zero else plumbing.unsqueeze(value, (0,), f"{name}_first"))
        if known.cell is not None:
            operands.append(peepholes(known))
        while operands[-1] is None:
            operands.pop()
        outputs = [f"{name}_all", f"{name}_h", f"{name}_c"][: 2 if known.cell is None else 3]
        settings = attributes(known, backwards=body.backwards)
        y, *last = plumbing.nodes_outputs(known.op_type, operands, outputs, settings)
        rewire: dict[ir.Value, ir.Value | Fresh] = {}
        for output in body.collected:
            if output.name:
                rewire[output] = plumbing.squeeze(y, (1,), f"{name}_steps")
        for output, state in body.final.items():
            if output.name:
                made = last[0 if state is known.hidden else 1]
                rewire[output] = plumbing.squeeze(made, (0,), f"{name}_last")
        gone = with_orphans([node], [o for new in plumbing.nodes for o in new.inputs])
        title = f"{node.op_type} {node.name} is {known.op_type} of {known.width} units"
        return Patch(title, node, {scope: Edit(gone, tuple(plumbing.nodes), rewire=rewire)})


def _cell(body: LoopBody, node: ir.Node, facts: Facts, outer: Sizes) -> Cell | None:
    """Return the cell that a body is, where it computes in float32 on rows."""
    sizes = BodySizes(body, node.attributes["body"].as_graph(), facts, outer)
    rows = (body.step_input, *body.states)
    if any(len(sizes.dims(value) or ()) != _STEP_RANK for value in rows):
        return None
    constants = (facts.tensor(value) for inner in body.nodes for value in inner.inputs)
    kinds = {t.dtype for t in constants if t is not None and t.dtype.is_floating_point()}
    if kinds != {ir.DataType.FLOAT}:
        return None
    algebra = SliceAlgebra(body, facts, sizes)
    following = {}
    for state, value in body.states.items():
        try:
            row = algebra.row(value)
        except NoForm:
            return None
        if len(row) != 1:
            return None
        following[state] = row[0]
    known = cell(States(following, frozenset(body.inputs)))
    return known if known is not None and inputs(known) == body.inputs else None


def _hands_out(body: LoopBody, known: Cell) -> bool:
    """Whether nothing but the cell's output is collected."""
    shown = body.states[known.hidden]
    return all(value is shown for output, value in body.collected.items() if output.name)
