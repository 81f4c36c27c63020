"""Which plan to keep by what the probe part shows: for an error, a metric, or a cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.keep import Keep
    from structopt_onnx.api.trials import Trial, Trials
    from structopt_onnx.rewriting.cost import Cost

_MOST_ROUNDS = 4
# A plan that leaves more of the budget than this unused is tried again with a looser estimate.
_WELL_USED = 0.9
# A plan that missed is followed by one for so much less squared error than would just do.
_MARGIN = 0.9
# How far one plan that missed may move the budget.
_LEAST_SCALE = 0.5
# A metric's budget of error is looked for between the ceiling and this share of it: by halving
# the interval's logarithm so often, and so often again after the sites near the plan are probed.
_SMALLEST = 1 / 1024
_HALVINGS = (6, 3)
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
        trials.reprobe(trial.plan)
        predicted = planning.predicted(trial.plan.chosen)
        scale = min(max(predicted / max(error, 1e-300), _LEAST_SCALE), 1 / _LEAST_SCALE)
    while best is None and trial is not None and not trials.over():
        share = _MARGIN * (budget / trial.measured.error) ** 2
        safer = planning.safer(trial.plan.chosen, share)
        if safer is None or trials.tried(safer):
            break
        trial = trials.of(safer)
        best = trial if trial.measured.error <= budget else None
    return None if best is None or best.empty else best


def within_metric(bench: Bench, trials: Trials, ceiling: float) -> Trial | None:
    """Find the largest error whose plan passes the task metric, by bisection below `ceiling`.

    At most eleven plans are measured. When the interval is small the heaviest sites of the plan
    found are probed at its options, and the search goes on around it.
    """
    best: Trial | None = None

    def passes(budget: float) -> bool:
        nonlocal best
        chosen = trials.planning.choose(budget**2)
        if not any_of(chosen):
            return True
        trial = trials.of(chosen)
        if not trial.measured.within(bench.options):
            return False
        if not trial.empty and (best is None or _cheaper(trials, trial, best)):
            best = trial
        return True

    low, high = ceiling * _SMALLEST, ceiling
    for halvings in _HALVINGS:
        if trials.over() or passes(high):
            break
        for _ in range(halvings):
            middle = math.sqrt(low * high)
            if trials.over():
                break
            low, high = (middle, high) if passes(middle) else (low, middle)
        if best is None:
            break
        trials.reprobe(best.plan)
        around = trials.planning.predicted(best.plan.chosen)
        low, high = around / _AROUND, min(ceiling, around * _AROUND)
    return best


def for_cost(bench: Bench, trials: Trials, keep: Keep, exact: Cost) -> tuple[Trial | None, str]:
    """Find the plan of least measured error that comes down to a cost; say why there is none.

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
    for _ in range(_MOST_ROUNDS):
        chosen = trials.planning.choose_saving(missing)
        if chosen is None or trials.over() or trials.tried(chosen):
            break
        trial = trials.of(chosen)
        if not math.isfinite(trial.measured.error):
            break  # it does not even run
        # What patches share, or the clean-up adds, no sum of single savings knows.
        over = bench.cost(trial.plan.model).of(objective) - allowed
        if over > 0:
            missing += over
        elif best is None or trial.measured.error < best.measured.error:
            best = trial
        trials.reprobe(trial.plan)
    if best is not None:
        return best, ""
    if trials.over():
        return None, "the time limit was reached"
    whole = allowed / keep.share
    least = max(0.0, now - trials.planning.most_saving()) / whole
    return None, f"the options on offer come down to {objective}={least:.3g}"


def any_of(chosen: tuple[int | None, ...]) -> bool:
    """Whether a choice holds any option."""
    return any(k is not None for k in chosen)


def _cheaper(trials: Trials, trial: Trial, other: Trial) -> bool:
    value = trials.planning.value
    return value(trial.plan.chosen) < value(other.plan.chosen)
