"""What the report says of the lossy stage: sites, budgets, what was predicted and measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from structopt_onnx.report.plan_record import KeepReport, MetricReport, PlanReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.judge import Measured
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.api.settling import Settled
    from structopt_onnx.api.sites import Site
    from structopt_onnx.api.trials import Trials
    from structopt_onnx.rewriting.cost import Objective

# Why a site is left alone that is within the limits: with a budget of cost, or without.
_OTHERWISE = {
    True: "the cost is met elsewhere with less error",
    False: "the budget saves more elsewhere",
}


def plan_report(
    bench: Bench,
    trials: Trials,
    settled: Settled | None,
    *,
    looks: int,
    unmet: str,
) -> PlanReport:
    """Say what was seen, tried, chosen and measured.

    Parameters
    ----------
    bench, trials
        The run, and what tried plans on the probe part.
    settled
        What became on the final part of the plan that the probe part let pass; None without one.
    looks
        How often the final part was looked at.
    unmet
        Why the probe part let no plan pass, where the sites do not say.
    """
    options, sites = bench.options, trials.planning.sites
    objective = options.objective
    kept = None if settled is None else settled.kept
    chosen = (None,) * len(sites) if kept is None else kept.chosen
    otherwise = _OTHERWISE[options.kept is not None]
    for site, k in zip(sites, chosen, strict=True):
        site.explain(k, options.max_error, objective, otherwise if kept else "no plan was kept")
    report = PlanReport(
        options.max_error,
        objective,
        tuple(site.report(k, objective) for site, k in zip(sites, chosen, strict=True)),
        rounds=trials.rounds,
        undone=() if settled is None else tuple(settled.undone),
        final_evaluations=looks,
        probed_on=trials.probed_on,
        unmet=unmet,
        metric=metric_report(bench),
        keep=_keep_report(options, sites, chosen),
    )
    if kept is None or settled is None:
        if settled is not None:
            unmet = f"{settled.measured.excess(options)} on the final part"
        return replace(report, unmet=unmet, nearest_miss=_nearest_miss(sites, objective, settled))
    probe = kept.measured
    return replace(
        report,
        predicted=probe.error * settled.taught,
        spread=None if probe.spread is None else probe.spread * settled.taught,
        rescaled=settled.taught,
        summed=kept.summed,
        probe_error=probe.error,
        final_error=settled.measured.error,
        metric=metric_report(bench, probe, settled.measured),
    )


def metric_report(
    bench: Bench, probe: Measured | None = None, final: Measured | None = None
) -> MetricReport | None:
    """Say what a task metric was on both parts; None where there is none."""
    most = bench.options.max_drop
    if bench.metric is None or most is None:
        return None
    report = MetricReport(bench.metric.name, most)
    if probe is None or final is None:
        return report
    return replace(
        report,
        probe=probe.metric,
        probe_original=probe.original,
        final=final.metric,
        final_original=final.original,
        decisions=final.decisions,
    )


def _keep_report(
    options: OptimizeOptions, sites: Sequence[Site], chosen: Sequence[int | None]
) -> KeepReport | None:
    keep = options.kept
    if keep is None:
        return None
    before = {
        name: site.choice.options[0].before.of(keep.objective)
        for site in sites
        for name in site.choice.site
    }
    saved = sum(
        site.saving(k, keep.objective)
        for site, k in zip(sites, chosen, strict=True)
        if k is not None
    )
    whole = sum(before.values())
    return KeepReport(keep.objective, keep.share, sites=1 + saved / whole if whole else 1.0)


def _nearest_miss(
    sites: Sequence[Site], objective: Objective, settled: Settled | None
) -> tuple[str, float] | None:
    if settled is not None and settled.undone:
        return settled.undone[-1].partition(" -> ")[0], settled.measured.error
    misses = [(f"{s.label}: {m[0]}", m[1]) for s in sites if (m := s.least(objective))]
    return min(misses, key=lambda miss: miss[1], default=None)
