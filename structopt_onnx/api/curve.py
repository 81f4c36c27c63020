"""What other budgets would have come to: the planner asked again, after the run's own plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.report.curve_record import Curve, CurvePoint
from structopt_onnx.rewriting.cost import Cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.api.plans import Chosen, Planning
    from structopt_onnx.api.trials import Trials

# Four levels per decade; each takes the planner some milliseconds.
_LEVELS = np.logspace(-4, 0, 17)


def curve(trials: Trials, whole: Cost) -> Curve:
    """Ask the planner for plans of many errors, and collect those that were measured.

    Nothing is run. Costs are sums over the sites: what exact passes make of a plan afterwards is
    not in them.

    Parameters
    ----------
    trials
        What was tried on the probe part.
    whole
        Cost of the model that the plans start from.
    """
    planning = trials.planning
    nothing: Chosen = (None,) * len(planning.sites)
    plans = [nothing]
    for level in _LEVELS:
        if trials.over():
            break
        plans.append(planning.choose(float(level) ** 2))
    return Curve(
        offered=tuple(
            CurvePoint(_left(planning, chosen, whole), planning.predicted(chosen))
            for chosen in dict.fromkeys(plans)
        ),
        tried=tuple(
            CurvePoint(_left(planning, t.chosen, whole), t.summed, t.measured.error)
            for t in trials.measured()
        ),
    )


def _left(planning: Planning, chosen: Chosen, whole: Cost) -> Cost:
    options = [planned.option for planned in planning.planned(chosen)]

    def left(figure: Callable[[Cost], int]) -> int:
        return figure(whole) + sum(figure(o.after) - figure(o.before) for o in options)

    return Cost(
        left(lambda cost: cost.parameters),
        left(lambda cost: cost.bytes),
        left(lambda cost: cost.macs),
        left(lambda cost: cost.nodes),
    )
