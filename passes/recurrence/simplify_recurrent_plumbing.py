"""simplify-recurrent-plumbing: the moves that exporters put around RNN, GRU and LSTM go.

What it does
    - Initial states that are zeros in every run are left out, which means zeros: however a graph
      comes by them, by `Expand`, `ConstantOfShape`, cuts of a stack of zeros and computed shapes.
    - The axis of directions of an output with one direction is squeezed instead of transposed
      and reshaped; with two, a shape that the graph computes becomes a constant.
    - Transposes of the output, or of what a recurrence reads, that follow each other become one
      or none: those of batch-first layers on top of each other.
    - One layer's final state is read from the layer, not from the states of all put together;
      so is the output of the step that was computed last, where there is one direction.
    - What nothing reads afterwards goes in the same edit.

Why
    A layer in PyTorch is up to a dozen nodes around one operator, each a copy or a start of a
    kernel, and they keep passes from seeing that one layer feeds the next.

Leaves alone
    Batch-first operators (layout 1), states that the caller can override, sizes that can't be
    proved equal, and outputs that nothing reads, which `normalize` drops. Weights that are cut
    and joined are the business of `fold-weight-layout`.

Exactness
    BITWISE: moves only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.recurrence.last_step import from_final_state
from structopt_onnx.passes.recurrence.operators import GATES
from structopt_onnx.passes.recurrence.output_views import shorter_reshape, shorter_transpose
from structopt_onnx.passes.recurrence.stacked_states import from_its_layer
from structopt_onnx.passes.recurrence.zero_states import without_zero_states
from structopt_onnx.rewriting.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.rewriting.passes import Refusal

    Rule = Callable[[ir.Node, Scope, Facts], Patch | Refusal | None]

_RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(GATES, (without_zero_states,)),
    "Reshape": (shorter_reshape,),
    "Transpose": (shorter_transpose,),
    "Gather": (from_its_layer, from_final_state),
}


@dataclass(frozen=True)
class SimplifyRecurrentPlumbing(Pass):
    """Has no options."""

    name: ClassVar[str] = "simplify-recurrent-plumbing"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    canonical: ClassVar[bool] = True  # a state left out need not take a node with it
    refusals: ClassVar[dict[str, str]] = {
        "state-can-be-overridden": "the initial state is zeros by a default that can be overridden",
    }

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield what the rules have to say about each node."""
        for node in scope.graph:
            rules = _RULES.get(node.op_type, ()) if node.domain == "" else ()
            found = (rule(node, scope, facts) for rule in rules)
            yield from (proposal for proposal in found if proposal is not None)
