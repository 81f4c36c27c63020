"""tie-recurrent-weights: layers or directions with nearly the same weights share one set.

What it does
    Recurrent layers of one operator and equal shapes whose W, R, B and P are near each other
    read the mean of them, stored once: an option per number of sets that are left, by Ward's
    clustering. The two directions of a node are tied likewise: its weights become the mean of
    both, stored once and joined with itself, which the runtime does at the start.

Why
    A set that is not stored is saved in full. It is rare: trained layers seldom look alike, but
    networks that repeat a layer, and pruned or fine-tuned copies of one, do.

Leaves alone
    Sets further apart than `most_error`, in subgraphs and functions, and weights that the caller
    can override, that are graph outputs, or that something else reads.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows. Predicted by the
    weights alone: the energy of what is lost, for inputs and states that are white.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.linalg.clusters import ward_merges
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.recurrence.tied_sets import tied_directions, tied_layers
from structopt_onnx.passes.recurrence.weight_sets import REFUSALS, WeightSet, find_sets, set_of
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.linalg.clusters import Clusters
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.weight_sets import Key

_BOTH = 2


@dataclass(frozen=True)
class TieRecurrentWeights(Pass):
    """Options of tie-recurrent-weights.

    Parameters
    ----------
    target
        Where costs are predicted.
    most_error
        Sets are offered to be tied up to this mean squared error over the energy of the weights.
    """

    name: ClassVar[str] = "tie-recurrent-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "not-alike": "the layers or directions are further apart than most_error allows",
        "superseded": "an earlier rewrite of the plan took the weights",
    }

    target: str = "cpu"
    most_error: float = 0.05

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield a choice per group of equal shapes, and one per node with two directions."""
        groups: dict[Key, list[WeightSet | Refusal]] = {}
        for key, found in find_sets(scope, facts):
            groups.setdefault(key, []).append(found)
        for members in groups.values():
            sets = [member for member in members if isinstance(member, WeightSet)]
            two_ways = any(held.directions == _BOTH for held in sets)
            if len(members) > 1 or two_ways:
                yield from (member for member in members if isinstance(member, Refusal))
            if len(sets) > 1:
                yield self._layers(sets)
            if two_ways:
                yield from (self._directions(held) for held in sets)

    def _layers(self, sets: Sequence[WeightSet]) -> Choice | Refusal:
        vectors = np.stack([held.vector().reshape(-1) for held in sets])
        steps = [step for step in ward_merges(vectors) if step.error <= self.most_error]
        if not steps:
            error = min(step.error for step in ward_merges(vectors))
            return Refusal("not-alike", f"{len(sets)} sets, error {error:.3g}", sets[0].name)
        names = [held.names for held in sets]

        def patch(step: Clusters, scope: Scope, facts: Facts) -> Patch | Refusal:
            found = [set_of(each, scope, facts) for each in names]
            missing = next((held for held in found if isinstance(held, Refusal)), None)
            if missing is not None:
                return missing
            held = [each for each in found if isinstance(each, WeightSet)]
            return tied_layers([[held[k] for k in c] for c in step.members if len(c) > 1], scope)

        before = sum(held.parameters for held in sets)
        options = [
            Option(
                f"{len(step.members)} of {len(sets)} sets",
                step.error,
                self._cost(sets[0], before),
                self._cost(sets[0], len(step.members) * sets[0].parameters),
                partial(patch, step),
            )
            for step in steps
        ]
        return self._choice(sets, options)

    def _directions(self, held: WeightSet) -> Choice | Refusal:
        (step,) = ward_merges(held.vector())
        if step.error > self.most_error:
            return Refusal("not-alike", f"two directions, error {step.error:.3g}", held.name)
        names = held.names

        def patch(scope: Scope, facts: Facts) -> Patch | Refusal:
            found = set_of(names, scope, facts)
            return found if isinstance(found, Refusal) else tied_directions(found, scope)

        after = self._cost(held, held.parameters // _BOTH, extra=len(held.values))
        before = self._cost(held, held.parameters)
        return self._choice([held], [Option("1 direction", step.error, before, after, patch)])

    @staticmethod
    def _choice(sets: Sequence[WeightSet], options: Sequence[Option]) -> Choice:
        made = (output.name for output in sets[0].node.outputs if output.name)
        site = frozenset(name for held in sets for name in held.names)
        return Choice(site, next(made, ""), tuple(options), "weights")

    def _cost(self, held: WeightSet, parameters: int, extra: int = 0) -> Cost:
        size = int(parameters * held.dtype.itemsize)
        cost = Cost(parameters=parameters, bytes=size, nodes=extra)
        return replace(cost, seconds=TARGETS[self.target].seconds(cost))
