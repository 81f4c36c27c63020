"""Which plan to keep by what the probe part shows: for an error, a metric, or a cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.keep import Keep
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.api.plans import Chosen
    from structopt_onnx.api.trials import Trial, Trials
    from structopt_onnx.rewriting.cost import Cost

_MOST_ROUNDS = 4
# A plan that leaves more of the budget than this unused is tried again with a looser estimate.
_WELL_USED = 0.9
# A plan that missed is followed by one for so much less squared error than would just do.
_MARGIN = 0.9
# How often, and by how much at once at most.
_MOST_SAFER = 8
_LEAST_SHARE = 0.02
# How far one plan that missed may move the budget.
_LEAST_SCALE = 0.5
# A metric's budget of error is looked for between the ceiling and this share of it: by halving
# the interval's logarithm so often, and so often again, around it, after sites were reprobed.
_SMALLEST = 1 / 1024
_HALVINGS, _HALVINGS_AROUND = 6, 4
_AROUND = 1.5


def within_error(trials: Trials, budget: float) -> Trial | None:
    """Find the cheapest plan with an error of at most `budget`, in at most four rounds.

    A plan that misses has its heaviest sites probed at the options chosen, so that the next one
    rests on what was measured near it; the budget is rescaled by what quadrature missed.
    """
    planning = trials.planning
    best: Trial | None = None
    trial: Trial | None = None
    scale = 1.0
    for _ in range(_MOST_ROUNDS):
        chosen = planning.choose((budget * scale) ** 2)
        if trials.over() or not any_of(chosen) or trials.tried(chosen):
            break
        trial = trials.of(chosen)
        error = trial.measured.error
        if error <= budget and (best is None or _cheaper(trials, trial, best)):
            best = trial
        if _WELL_USED * budget <= error <= budget:
            break
        trials.reprobe(trial)
        predicted = planning.predicted(trial.chosen)
        scale = min(max(predicted / max(error, 1e-300), _LEAST_SCALE), 1 / _LEAST_SCALE)
    if best is None and trial is not None:
        best = _safer(trials, trial, budget)
    return None if best is None or best.empty else best


def _safer(trials: Trials, missed: Trial, budget: float) -> Trial | None:
    """Ask for less squared error, as much as the last plan missed by, until a plan is within."""
    planning, trial = trials.planning, missed
    capacity = planning.predicted(missed.chosen) ** 2
    for _ in range(_MOST_SAFER):
        capacity *= _MARGIN * max((budget / trial.measured.error) ** 2, _LEAST_SHARE)
        chosen = planning.choose(capacity)
        if trials.over() or not any_of(chosen):
            break
        trial = trials.of(chosen)  # one that was tried before is not measured again
        if trial.measured.error <= budget:
            return trial
    return None


def within_metric(bench: Bench, trials: Trials, ceiling: float) -> Trial | None:
    """Find the largest error whose plan passes the task metric, by bisection below `ceiling`.

    At most twelve plans are measured. When the interval is small, the heaviest sites of the best
    plan that passed and of the last that did not are probed at the options chosen, and the search
    goes on around the interval.
    """
    search = _Bisection(bench.options, trials)
    low, high = search.narrow(ceiling * _SMALLEST, ceiling, _HALVINGS)
    if search.failed is not None and not trials.over():
        for trial in (search.best, search.failed):
            if trial is not None:
                trials.reprobe(trial)
        search.narrow(low / _AROUND, min(ceiling, high * _AROUND), _HALVINGS_AROUND)
    return search.best


class _Bisection:
    """Tries budgets of error, and keeps the cheapest plan that passes and the last that fails."""

    def __init__(self, options: OptimizeOptions, trials: Trials) -> None:
        self._options = options
        self._trials = trials
        self.best: Trial | None = None
        self.failed: Trial | None = None

    def narrow(self, low: float, high: float, halvings: int) -> tuple[float, float]:
        """Halve the logarithm of an interval so often, unless all of it passes."""
        if self._passes(high):
            return high, high
        for _ in range(halvings):
            middle = math.sqrt(low * high)
            if self._trials.over():
                break
            low, high = (middle, high) if self._passes(middle) else (low, middle)
        return low, high

    def _passes(self, budget: float) -> bool:
        chosen = self._trials.planning.choose(budget**2)
        if not any_of(chosen):
            return True
        trial = self._trials.of(chosen)
        if not trial.measured.within(self._options):
            self.failed = trial
            return False
        if not trial.empty and (self.best is None or _cheaper(self._trials, trial, self.best)):
            self.best = trial
        return True


def for_cost(bench: Bench, trials: Trials, keep: Keep, exact: Cost) -> tuple[Trial | None, str]:
    """Find the plan of least measured error that comes down to a cost; say why there is none.

    Plans rest on errors that add up. Where much is cut they hardly do, so the even cut is measured
    beside the planned ones.

    Parameters
    ----------
    bench, trials
        The run, and what it tries with.
    keep
        The cost to come down to.
    exact
        What the model costs after exact passes.
    """
    objective = keep.objective
    allowed = keep.share * bench.cost(bench.model, bench.shapes).of(objective)
    now = exact.of(objective)
    if now <= allowed:
        return None, "exact rewrites alone come down to it"
    missing = now - allowed
    best: Trial | None = None
    looked: set[Chosen] = set()
    for _ in range(_MOST_ROUNDS):
        chosen = trials.planning.choose_saving(missing)
        if chosen is None or trials.over() or chosen in looked:
            break
        looked.add(chosen)
        trial = trials.of(chosen)
        if not math.isfinite(trial.measured.error):
            trials.reprobe(trial)  # which of its options is it that can't be run?
            continue
        # What patches share, or the clean-up adds, no sum of single savings knows.
        over = bench.planned_cost(trials.plan(trial).model).of(objective) - allowed
        if over > 0:
            missing += over
        elif best is None or trial.measured.error < best.measured.error:
            best = trial
        trials.reprobe(trial)
    even = trials.planning.choose_evenly(missing)
    if best is not None and even is not None and not (trials.over() or even in looked):
        trial = trials.of(even)
        fits = bench.planned_cost(trials.plan(trial).model).of(objective) <= allowed
        best = trial if fits and trial.measured.error < best.measured.error else best
    if best is not None:
        return best, ""
    if trials.over():
        return None, "the time limit was reached"
    whole = allowed / keep.share
    least = max(0.0, now - trials.planning.most_saving()) / whole
    why = "; no calibration data was given: give --calibration" if bench.blind else ""
    return None, f"the options on offer come down to {objective}={least:.3g}{why}"


def any_of(chosen: Chosen) -> bool:
    """Whether a choice holds any option."""
    return any(k is not None for k in chosen)


def _cheaper(trials: Trials, trial: Trial, other: Trial) -> bool:
    value = trials.planning.value
    return value(trial.chosen) < value(other.chosen)
