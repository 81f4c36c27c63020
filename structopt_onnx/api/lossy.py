"""The lossy stage: fit, probe, plan, apply, measure, tighten, refit, judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.api.budgets import for_cost, within_error, within_metric
from structopt_onnx.api.curve import curve
from structopt_onnx.api.judge import Judge
from structopt_onnx.api.measured_costs import measured
from structopt_onnx.api.plan_report import plan_report
from structopt_onnx.api.plans import Planning
from structopt_onnx.api.refit import Refits, Refitting
from structopt_onnx.api.settling import Settling
from structopt_onnx.api.sites import Site, collect_sites
from structopt_onnx.api.trials import Trial, Trials
from structopt_onnx.rewriting.cost import graph_cost

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.report.plan_record import PlanReport
    from structopt_onnx.report.record import SampleReport
    from structopt_onnx.rewriting.manager import PassManager, Planned

# Where a task metric alone is the limit, errors as large as the outputs are looked at first.
_LARGEST_ERROR = 1.0


@dataclass(frozen=True)
class LossyStage:
    """Result of the lossy passes: a model with its record, and the report on the plan.

    Parameters
    ----------
    model, manager
        The model with the plan applied, and the manager that did; the exact ones without a plan.
    report
        What was seen, tried and chosen.
    plan
        The options applied; empty when none was.
    """

    model: ir.Model
    manager: PassManager
    report: PlanReport
    plan: tuple[Planned, ...] = ()


class LossySearch:
    """Chooses lossy rewrites for one model within the user's budgets.

    Parameters
    ----------
    bench, exact
        The run and the model that exact passes made.
    """

    def __init__(self, bench: Bench, exact: ExactStage) -> None:
        self._bench = bench
        self._exact = exact
        # Without real samples nothing is fitted, so there is nothing to keep apart.
        everything = (bench.samples,) * 3
        self._fit, self._probe, self._final = everything if bench.blind else bench.samples.split()
        self._sites: list[Site] = []
        self._planning = Planning(bench, exact, self._sites)
        self._trials = Trials(bench, self._planning, self._probe)
        refits = bench.options.refit and not bench.blind
        refitting = Refitting(bench, exact, self._fit) if refits else None
        self._refits = Refits(bench, self._trials, refitting)

    @property
    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Return the samples to fit to, to plan by, and to judge by."""
        return self._fit, self._probe, self._final

    def tell(self, report: SampleReport) -> SampleReport:
        """Add the sizes of the parts to what is told of the samples."""
        if self._bench.blind:
            return report
        fit, probe, final = len(self._fit), len(self._probe), len(self._final)
        apart = not self._final.blocked
        return replace(report, fit=fit, probe=probe, final=final, by_source=apart)

    def run(self) -> LossyStage:
        """Search, and return the best plan that holds on the final part."""
        bench = self._bench
        with bench.clock.stage("fit"):
            self._sites += collect_sites(bench, self._exact, self._fit)
        with bench.clock.stage("costs"):
            facts = self._exact.manager.facts(self._exact.model)
            costs = measured(bench, facts, self._sites)
        with bench.clock.stage("probe"):
            self._trials.probe_all()
        final = Judge(bench, self._final)
        with bench.clock.stage("plan"):
            trial, unmet = self._search()
            settled = None
            if trial is not None:
                settled = Settling(bench, self._trials, self._refits, final).settle(trial)
            around = curve(self._trials, graph_cost(self._exact.model, facts))
        report = plan_report(bench, self._trials, settled, looks=final.evaluations, unmet=unmet)
        report = replace(report, costs=costs, curve=around)
        if settled is None or settled.kept is None:
            return LossyStage(self._exact.model, self._exact.manager, report)
        kept = self._refits.of(settled.kept)
        plan = (*self._planning.planned(settled.kept.chosen), *kept.refitted.planned)
        report = replace(report, refit=kept.report)
        return LossyStage(kept.refitted.model, kept.refitted.manager, report, plan)

    def _search(self) -> tuple[Trial | None, str]:
        """Find a plan by the probe part; without one say why, where that is not in the sites."""
        options, trials = self._bench.options, self._trials
        if options.kept is not None:
            cost = self._bench.planned_cost(self._exact.model)
            trial, unmet = for_cost(self._bench, trials, options.kept, cost)
            if trial is not None and not trial.measured.within(options):
                return None, f"{trial.measured.excess(options)} on the probe part"
            return trial, unmet
        if options.max_error is not None:
            trial = within_error(trials, options.max_error)
            if trial is None or trial.measured.within(options):
                return trial, ""
        ceiling = _LARGEST_ERROR if options.max_error is None else options.max_error
        trial = within_metric(self._bench, trials, ceiling)
        if trial is None:
            trials.up_to_the_limit()
            trial = within_metric(self._bench, trials, ceiling)
        return trial, ""
