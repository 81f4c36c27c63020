"""The budgets of a run, of error, of a task metric, of cost, and what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.figures import count, error, plural, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.plan_record import KeepReport, MetricReport, PlanReport
    from structopt_onnx.report.record import SampleReport

_NAMES = {"bytes": "weights' bytes", "macs": "MACs", "time": "predicted time"}


def budget_lines(plan: PlanReport, samples: SampleReport, *, kept: bool) -> Iterator[str]:
    """Say for every budget what was used of it.

    Parameters
    ----------
    plan
        The lossy part of a run.
    samples
        The inputs it had.
    kept
        False when the plan was rolled back as a whole.
    """
    if plan.final_error is None:
        yield _nothing(plan)
        return
    if not kept:
        yield f"{budgets_text(plan)} not used: the lossy rewrites were rolled back"
        return
    looks = plan.final_evaluations
    often = f", looked at {plural(looks, 'time')}" if looks > 1 else ""
    where = f"({plural(samples.final, 'sample')} that nothing was fitted on{often})"
    if plan.keep is not None:
        yield _keep(plan.keep)
    if plan.metric is not None:
        yield f"{_metric(plan.metric)}, on the final part {where}"
    limit = (
        "(no error limit was set)" if plan.budget is None else f"of {error(plan.budget)} allowed"
    )
    there = where if plan.metric is None else "too"
    yield f"error {error(plan.final_error)} {limit}, measured on the final part {there}"


def budgets_text(plan: PlanReport) -> str:
    """Name the budgets: ``error budget 0.05``, ``metric agreement within 0.005``."""
    found = []
    if plan.keep is not None:
        found.append(f"keep {plan.keep.objective}={plan.keep.share:g}")
    if plan.metric is not None:
        found.append(f"metric {plan.metric.name} within {error(plan.metric.max_drop)}")
    if plan.budget is not None:
        found.append(f"error budget {error(plan.budget)}")
    return ", ".join(found)


def decision_lines(metric: MetricReport | None) -> Iterator[str]:
    """Say what the built-in agreement counted as a decision."""
    if metric is not None and metric.decisions:
        counted = ", ".join(
            f"{decision} of {shown(output)} ({count(number)} of them)"
            for output, decision, number in metric.decisions
        )
        yield f"decisions counted by {metric.name}: {counted}; the worst output tells"


def error_line(plan: PlanReport) -> str:
    """Say what was predicted of the plan, from what, and what was measured."""
    if plan.final_error is None or plan.predicted is None:
        return ""
    spread = "" if plan.spread is None else f", standard error {error(plan.spread)}"
    source = f"{error(plan.probe_error)} measured on the probe part{spread}"
    if plan.rescaled != 1:
        source += f", x{plan.rescaled:.2f}: the root of how far the plan undone was off"
    if plan.summed is not None:
        source += f"; single sites in quadrature {error(plan.summed)}"
    return (
        f"all together: predicted {error(plan.predicted)} ({source}), measured on the final part "
        f"{error(plan.final_error)}; "
    )


def _nothing(plan: PlanReport) -> str:
    """Say that no plan was kept, and what was in the way."""
    if plan.keep is not None:
        return f"{budgets_text(plan)}: nothing lossy kept, {plan.unmet}"
    met = f"{budgets_text(plan)} met by changing nothing lossy"
    if plan.nearest_miss is not None and not plan.unmet:
        label, found = plan.nearest_miss
        return f"{met}; nearest miss: {label} at error {error(found)}"
    return f"{met}: {plan.unmet}" if plan.unmet else met


def _metric(metric: MetricReport) -> str:
    drop, original = metric.drop, metric.final_original
    lost = "" if drop is None else f", drop {_figure(drop)} of {error(metric.max_drop)} allowed"
    return f"metric {metric.name} {_figure(metric.final)} (original {_figure(original)}){lost}"


def _keep(keep: KeepReport) -> str:
    what = _NAMES.get(keep.objective, keep.objective)
    left = "" if keep.reached is None else f" {keep.reached:.1%} of the original's {what} left"
    sites = "" if keep.sites is None else f", {keep.sites:.1%} of the lossy sites'"
    return f"keep {keep.objective}={keep.share:g}:{left}{sites}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
