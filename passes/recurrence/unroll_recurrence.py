"""unroll-recurrence: RNN, GRU and LSTM become their steps where the target lacks the operator.

What it does
    For a target without the operator, a node whose sequence has a fixed length is written out:
    one Gemm for the input products of all steps, then a Gemm and the cell's element-wise
    operations per step, for both directions, with peepholes and any activation functions.
    Missing initial states are zeros, and the first step gets none of the products with them.

Why
    Mobile providers take no recurrent operator, but the whole of its steps: one node on the CPU
    between two partitions costs more than many nodes in one.

Leaves alone
    Everything on targets that have the operator. Sequences of free length or too many steps,
    sequence_lens that may be shorter, weights that are no constants, clip and input_forget, and
    steps that would need an operator that the target lacks as well.

Exactness
    ROUNDING: the same equations, other kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.recurrence.activations import read_activations
from structopt_onnx.passes.recurrence.cell_steps import Cells, Direction
from structopt_onnx.passes.recurrence.subgraph import Subgraph
from structopt_onnx.rewriting.passes import NodePass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.cell_steps import Matrix

# Before this opset Gemm and Reshape took other inputs.
_FIRST_OPSET = 7
_X_RANK = 3
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass(frozen=True, eq=False)
class Found:
    """A node to unroll: its directions, the length of its sequence, type and opset."""

    node: ir.Node
    directions: tuple[Direction, ...]
    steps: int
    dtype: ir.DataType
    opset: int


@dataclass(frozen=True)
class UnrollRecurrence(NodePass[Found]):
    """Options of unroll-recurrence.

    Parameters
    ----------
    target
        Where the model will run.
    most_steps
        Longer sequences are left alone.
    """

    name: ClassVar[str] = "unroll-recurrence"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset(op.GATES)
    canonical: ClassVar[bool] = True  # what the target can't run at all has no cost to compare
    refusals: ClassVar[dict[str, str]] = {
        "length-not-fixed": "the target lacks the operator, but the sequence has no fixed length",
        "too-many-steps": "the target lacks the operator, but there are more steps than most_steps",
        "sequence-lens": "the target lacks the operator, but sequences may be shorter than X",
        "weight-not-constant": "W, R, B or P is computed, or the caller can override it",
        "clip": "the node clips what goes into its activation functions",
        "input-forget": "the node couples input and forget gate",
        "activation": "an activation function is unknown or lacks its constants",
        "step-not-supported": "the steps would need an operator that the target lacks as well",
    }

    target: str = "cpu"
    most_steps: int = 1000

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Found | Refusal | None:
        """Look whether the target lacks the node's operator, and read the node."""
        opset = facts.opset(scope) or 0
        x = op.operand(node, op.X)
        weight = op.operand(node, op.W)
        dtype = None if weight is None else weight.dtype
        if dtype not in _DTYPES or opset < _FIRST_OPSET or op.is_batch_first(node):
            return None
        if TARGETS[self.target].supports(node.op_type, opset, dtype):
            return None
        dims = facts.dims(x)
        steps = dims[0] if dims is not None and len(dims) == _X_RANK else None
        if steps is None:
            return self._refuse("length-not-fixed", f"X is {x.shape if x else None}", node)
        if steps == 0:
            return None
        if steps > self.most_steps:
            return self._refuse("too-many-steps", f"{steps} of {self.most_steps}", node)
        if not _is_full(op.operand(node, op.LENGTHS), steps, facts):
            return self._refuse("sequence-lens", "they are not all known to be full", node)
        if "clip" in node.attributes:
            return self._refuse("clip", f"at {node.attributes['clip'].as_float():g}", node)
        coupled = node.attributes.get("input_forget")
        if coupled is not None and coupled.as_int() != 0:
            return self._refuse("input-forget", "input_forget is set", node)
        directions = self._directions(node, facts, opset)
        if isinstance(directions, Refusal):
            return directions
        return Found(node, directions, steps, dtype, opset)

    def _refuse(self, code: str, detail: str, node: ir.Node) -> Refusal:
        return Refusal(code, f"{node.op_type}, {detail}", node.name or "")

    def _directions(
        self, node: ir.Node, facts: Facts, opset: int
    ) -> tuple[Direction, ...] | Refusal:
        ways = op.directions(node)
        activations = read_activations(node, len(ways), opset)
        if activations is None:
            return self._refuse("activation", "not as specified", node)
        held: dict[int, Matrix] = {}
        for index in (op.W, op.R, op.B, op.PEEPHOLES):
            value = op.operand(node, index)
            array = facts.array(value)
            if value is not None and array is None:
                return self._refuse("weight-not-constant", f"'{value.name}'", node)
            if array is not None:
                held[index] = np.asarray(array, np.float64)
        rows = held[op.R].shape[1]
        bias = held.get(op.B, np.zeros((len(ways), 2 * rows)))
        reset = node.attributes.get("linear_before_reset")
        return tuple(
            Direction(
                op_type=node.op_type,
                input_weight=held[op.W][d],
                recurrent_weight=held[op.R][d],
                input_bias=bias[d, :rows],
                recurrent_bias=bias[d, rows:],
                peepholes=held[op.PEEPHOLES][d].reshape(3, -1) if op.PEEPHOLES in held else None,
                activations=activations[d],
                reset_after=reset is not None and reset.as_int() != 0,
                reverse=way == "reverse",
            )
            for d, way in enumerate(ways)
        )

    def rewrite(self, scope: Scope, facts: Facts, match: Found) -> Patch | Refusal:
        """Describe the edit."""
        del facts
        node, steps, ways = match.node, match.steps, match.directions
        graph = Subgraph(node.name or node.op_type, match.opset, match.dtype)
        features = ways[0].input_weight.shape[1]
        x = graph.reshape(op.operand(node, op.X), (-1, features), name="X")
        states = [self._initial(graph, match, index) for index in (op.INITIAL_H, op.INITIAL_C)]
        runs = [
            Cells(graph, way, "reverse" if way.reverse else "forward", match.opset).unroll(
                x, steps, states[0][d], states[1][d]
            )
            for d, way in enumerate(ways)
        ]
        rewire: dict[ir.Value, ir.Value | Fresh] = {}
        hidden = ways[0].hidden
        for index, output in enumerate(node.outputs):
            if not output.name:
                continue
            if index == op.Y:
                each = [
                    graph.reshape(
                        graph.join(run.outputs, axis=0, name="h"), (steps, 1, -1, hidden), name="Y"
                    )
                    for run in runs
                ]
                made = graph.join(each, axis=1, name="Y")
            else:
                last = [run.last_h if index == op.Y_H else run.last_c for run in runs]
                joined = graph.join(last, axis=0, name="last")
                made = graph.reshape(joined, (len(ways), -1, hidden), name="Y_last")
            if isinstance(made, Fresh):
                rewire[output] = made
        target = TARGETS[self.target]
        for new in graph.nodes:
            if not target.supports(new.op_type, match.opset, match.dtype):
                return self._refuse(
                    "step-not-supported", f"{target.name} lacks {new.op_type}", node
                )
        title = f"{node.op_type} {node.name}: {steps} steps, {target.name} lacks the operator"
        return Patch(title, node, {scope: Edit((node,), tuple(graph.nodes), rewire=rewire)})

    @staticmethod
    def _initial(graph: Subgraph, match: Found, index: int) -> tuple[Operand, ...]:
        """Return an initial state of each direction, [N, H]; None for zeros."""
        count = len(match.directions)
        value = op.operand(match.node, index)
        if value is None:
            return (None,) * count
        return tuple(
            graph.reshape(part, (-1, match.directions[0].hidden), name="state")
            for part in graph.split(value, count, axis=0, name="state")
        )


def _is_full(lengths: ir.Value | None, steps: int, facts: Facts) -> bool:
    if lengths is None:
        return True
    known = facts.array(lengths)
    return known is not None and bool((known == steps).all())
