"""The final part: what was planned must hold on samples that had no say in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.api.budgets import any_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.judge import Judge, Measured
    from structopt_onnx.api.plans import Plan
    from structopt_onnx.api.trials import Trial, Trials

# Undoing goes a little further than asked, to look at the final part as rarely as possible.
_UNDO_MARGIN = 0.8
# A task metric says not by how much a plan is too bold: each look takes half of its squared error.
_STEP_BACK = 0.5
_MOST_STEPS = 8


@dataclass
class Settled:
    """What became of a plan on the final part.

    Parameters
    ----------
    plan
        The plan that holds there; None when none does.
    measured
        What the final part showed of the last plan looked at.
    undone
        What was taken back, as ``site: option -> safer one``.
    taught
        Error on the final part over that on the probe part, of the last plan that was looked at
        and undone; 1 where none was.
    """

    plan: Plan | None
    measured: Measured
    undone: list[str] = field(default_factory=list)
    taught: float = 1.0


class Settling:
    """Takes a plan back, a little at a time, until the final part is within the limits.

    Parameters
    ----------
    bench, trials, final
        The run, what tries plans on the probe part, and the final part's judge.
    """

    def __init__(self, bench: Bench, trials: Trials, final: Judge) -> None:
        self._bench = bench
        self._trials = trials
        self._planning = trials.planning
        self._final = final

    def settle(self, trial: Trial) -> Settled:
        """Look at the final part, once per plan."""
        options = self._bench.options
        settled = Settled(trial.plan, self._final.measure(trial.plan.model))
        plan = trial.plan
        capacity = trial.summed**2
        while not settled.measured.within(options):
            chosen: Sequence[int | None] | None = None
            if options.keep is None and options.metric is None:
                chosen = self._undo_worst(plan, settled)
            elif options.keep is None and len(settled.undone) < _MOST_STEPS:
                chosen, capacity = self._step_back(plan, capacity)
                settled.undone.append(f"the plan as a whole ({_told(settled.measured)})")
            if chosen is None or not any_of(tuple(chosen)):
                settled.plan = None
                return settled
            settled.taught = _ratio(settled.measured, self._trials.of(plan.chosen).measured)
            plan = self._trials.of(chosen).plan
            settled.plan, settled.measured = plan, self._final.measure(plan.model)
        return settled

    def _undo_worst(self, plan: Plan, settled: Settled) -> Sequence[int | None]:
        """Take the worst error per gain back; an error over the budget asks for that much less."""
        options, error = self._bench.options, settled.measured.error
        share = _UNDO_MARGIN * ((options.max_error or 0.0) / error) ** 2
        chosen, undone = self._planning.retreat(plan.chosen, share)
        settled.undone.append(f"{', '.join(undone)} ({_told(settled.measured)})")
        for site, before, after in zip(self._planning.sites, plan.chosen, chosen, strict=True):
            if before is not None and after is None:
                site.why = "undone: the final part was over the budget"
        return chosen

    def _step_back(self, plan: Plan, capacity: float) -> tuple[Sequence[int | None] | None, float]:
        """Plan anew for half of the squared error, or less where that is no better a plan."""
        for _ in range(_MOST_STEPS):
            capacity *= _STEP_BACK
            chosen = self._planning.choose(capacity)
            if not any_of(chosen):
                break
            if chosen != plan.chosen and self._trials.of(chosen).measured.within(
                self._bench.options
            ):
                return chosen, capacity
        return None, capacity


def _told(measured: Measured) -> str:
    drop = "" if measured.drop is None else f", drop {measured.drop:.3g}"
    return f"{measured.error:.3g}{drop} on the final part"


def _ratio(final: Measured, probe: Measured) -> float:
    ratio = final.error / max(probe.error, 1e-300)
    return ratio if 0 < ratio < float("inf") else 1.0
