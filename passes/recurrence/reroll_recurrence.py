"""reroll-recurrence: a recurrence that a loop wrote out becomes RNN, GRU, LSTM or Scan.

What it does
    Finds products with one weight that follow each other, the slices of nodes between them, the
    states that cross from slice to slice and what each reads for itself. Where the algebra of a
    slice is a cell of ONNX's RNN, GRU or LSTM, all slices become that operator; otherwise they
    become a Scan. What steps do without feeding a state (an output layer, an input layer) is
    done once for the rows of all steps. Two directions over one input become one operator. A
    first step that an exporter folded for its state of zero counts, also where it leaves only
    one more.

Why
    Thousands of nodes take long to load and, one by one, to run; the fused operators are the
    ones that runtimes have kernels for.

Leaves alone
    Steps that feed back what they chose (ArgMax), steps under a mask, random steps, LSTMs with
    a projected state, states whose shape changes, recurrences inside subgraphs and functions,
    and Scans of fewer than four steps; everything where the target lacks what would be made.

Exactness
    ROUNDING: the fused operators add in another order and have their own sigmoid and tanh. A
    Scan's body is the slice itself, node by node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.chains import products
from structopt_onnx.passes.recurrence.pairs import pairs
from structopt_onnx.passes.recurrence.scan import Scanned
from structopt_onnx.passes.recurrence.sizes import Sizes
from structopt_onnx.passes.recurrence.stepwise import batched
from structopt_onnx.passes.recurrence.survey import survey
from structopt_onnx.rewriting.passes import Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Proposal = Patch | Refusal
_MADE = ("RNN", "GRU", "LSTM", "Scan")


@dataclass(frozen=True)
class RerollRecurrence(Pass):
    """Options of reroll-recurrence.

    Parameters
    ----------
    target
        Where the model will run; nothing is rolled up where it lacks the operators.
    """

    name: ClassVar[str] = "reroll-recurrence"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    refusals: ClassVar[dict[str, str]] = {
        "data-dependent-feedback": "a step chooses (ArgMax, TopK) what the next one reads",
        "mask-is-no-prefix": "a step is masked, and nothing shows that the mask is a prefix",
        "node-may-be-random": "a step holds a random operator, or one of another domain",
        "projected-state": "an LSTM hands on a projection of its output",
        "state-changes-shape": "the first state has another shape than the next, or may have",
        "too-few-steps": "a Scan of so few steps would be slower",
    }

    target: str = "cpu"

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Proposal]:
        """Yield what can be done now; what builds on it waits for the next sweep."""
        target, opset = TARGETS[self.target], facts.opset(scope) or 0
        known = all(target.supports(name, opset, ir.DataType.FLOAT) for name in _MADE)
        if not scope.is_main or not known:
            return
        found = products(scope.graph, facts)
        operators = any(n.op_type in {"RNN", "GRU", "LSTM"} for n in scope.graph)
        if not (found.chains or found.apart or found.alone or operators):
            return
        sizes = Sizes(scope.graph, facts)
        yield from pairs(scope, facts, sizes)
        recurrences = survey(found, facts, sizes)
        fused = [r.fused for r in recurrences if r.fused is not None]
        ready = [f.patch(scope, facts, sizes) for f in fused if f.readable()]
        if any(isinstance(p, Patch) for p in ready):
            yield from ready
            return
        fixed = {node for r in recurrences if r.refusal is None for node in r.nodes()}
        apart = [batched(members, scope, facts, sizes, fixed) for members in found.apart]
        if any(apart):
            yield from (patch for patch in apart if patch is not None)
            return
        gathered = [f.patch(scope, facts, sizes) for f in fused if not f.readable()]
        others = [Scanned(r.found) for r in recurrences if r.fused is None and r.refusal is None]
        yield from (r.refusal for r in recurrences if r.refusal is not None)
        yield from (*ready, *gathered)
        if not any(isinstance(p, Patch) for p in gathered):
            yield from (p for s in others if (p := s.patch(scope, sizes)) is not None)
