"""The lossy stage: fit, probe, plan, apply, measure, tighten, judge."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.api.judge import Judge
from structopt_onnx.api.plans import Plan, Planning
from structopt_onnx.api.sites import Site, collect_sites
from structopt_onnx.report.record import PlanReport

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.report.record import SampleReport
    from structopt_onnx.rewriting.manager import PassManager, Planned

_MOST_ROUNDS = 4
# A plan that leaves more of the budget than this unused is tried again with a looser estimate.
_WELL_USED = 0.9
# Sites probed again after a plan that missed, and how far one miss may move the budget.
_MOST_REPROBED = 8
_LEAST_SCALE = 0.5
# Undoing on the final part goes a little further than asked, to look there as rarely as possible.
_UNDO_MARGIN = 0.8


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
    """Chooses lossy rewrites for one model within one budget.

    Parameters
    ----------
    bench, exact
        The run and the model that exact passes made.
    budget
        Largest error allowed.
    """

    def __init__(self, bench: Bench, exact: ExactStage, budget: float) -> None:
        self._bench = bench
        self._exact = exact
        self._budget = budget
        # Without real samples nothing is fitted, so there is nothing to keep apart.
        everything = (bench.samples,) * 3
        self._fit, self._probe, self._final = everything if bench.blind else bench.samples.split()
        self._sites: list[Site] = []
        self._planning = Planning(bench, exact, self._sites)

    @property
    def final(self) -> Samples:
        """Return the part to judge by."""
        return self._final

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
        judge, final = Judge(bench, self._probe), Judge(bench, self._final)
        with bench.clock.stage("probe"):
            for number, site in enumerate(self._sites, 1):
                bench.progress(f"probe {number}/{len(self._sites)}: {site.label}")
                if bench.clock.over():
                    site.why = "not probed: the time limit was reached"
                else:
                    self._try_alone(site, judge)
        with bench.clock.stage("plan"):
            plan, probe_error, rounds = self._plan(judge)
            undone: list[str] = []
            final_error = None
            if plan is not None:
                undone, final_error, plan = self._settle(plan, final)
                if plan is not None and undone:
                    probe_error = judge.error(plan.model)
        objective = bench.options.minimize
        chosen = (None,) * len(self._sites) if plan is None else plan.chosen
        for site, k in zip(self._sites, chosen, strict=True):
            site.explain(k, self._budget, objective)
        misses = [(f"{s.label}: {m[0]}", m[1]) for s in self._sites if (m := s.least(objective))]
        if plan is None and undone:
            misses = [(undone[-1].partition(" -> ")[0], final_error or 0.0)]
        report = PlanReport(
            self._budget,
            objective,
            tuple(s.report(k, objective) for s, k in zip(self._sites, chosen, strict=True)),
            None if plan is None else self._planning.predicted(plan.chosen),
            None if plan is None else probe_error,
            None if plan is None else final_error,
            rounds,
            tuple(undone),
            final.evaluations,
            min(misses, key=lambda miss: miss[1], default=None) if plan is None else None,
        )
        if plan is None:
            return LossyStage(self._exact.model, self._exact.manager, report)
        return LossyStage(plan.model, plan.manager, report, self._planning.planned(plan.chosen))

    def _try_alone(self, site: Site, judge: Judge, k: int | None = None) -> None:
        """Measure what one option, by default at about half cost, does to the outputs."""
        k = site.probed_option(self._bench.options.minimize) if k is None else k
        if k is None:
            site.why = site.unpaying(self._bench.options.minimize)
            return
        plan = self._planning.build([k if other is site else None for other in self._sites])
        if plan.chosen[self._sites.index(site)] is None:
            site.why = "refused: " + self._last_refusal(plan)
            return
        site.probe(k, judge.error(plan.model))
        mildest = site.mildest(self._bench.options.minimize)
        if not math.isfinite(site.probes[k]) and mildest not in (k, None):
            self._try_alone(site, judge, mildest)

    @staticmethod
    def _last_refusal(plan: Plan) -> str:
        refused = plan.manager.record.refused
        return f"{refused[-1].refusal.code}" if refused else "the edit was not admitted"

    def _plan(self, judge: Judge) -> tuple[Plan | None, float, int]:
        """Plan and measure on the probe part, at most four times; keep the best that fits.

        A plan that misses has its heaviest sites probed at the options chosen, so that the next
        one rests on what was measured near it; the budget is rescaled by what quadrature missed.
        """
        best: tuple[Plan, float] | None = None
        plan: Plan | None = None
        error, scale, rounds = math.inf, 1.0, 0
        seen: set[tuple[int | None, ...]] = set()
        while rounds < _MOST_ROUNDS and not self._bench.clock.over():
            chosen = self._planning.choose((self._budget * scale) ** 2)
            if all(k is None for k in chosen) or chosen in seen:
                break
            seen.add(chosen)
            rounds += 1
            self._bench.progress(f"plan {rounds}")
            plan = self._planning.build(chosen)
            error = self._measure(plan, judge)
            if error <= self._budget and self._better(plan, best):
                best = plan, error
            if _WELL_USED * self._budget <= error <= self._budget:
                break
            for site, k in self._heaviest(plan):
                self._try_alone(site, judge, k)
            predicted = self._planning.predicted(plan.chosen)
            scale = min(max(predicted / max(error, 1e-300), _LEAST_SCALE), 1 / _LEAST_SCALE)
        while best is None and plan is not None and not self._bench.clock.over():
            if all(k is None for k in plan.chosen):
                break
            share = (self._budget / error) ** 2
            plan = self._planning.build(self._planning.retreat(plan, share)[0])
            error = self._measure(plan, judge)
            if error <= self._budget:
                best = plan, error
        if best is None or all(k is None for k in best[0].chosen):
            return None, math.inf, rounds
        return *best, rounds

    def _measure(self, plan: Plan, judge: Judge) -> float:
        """Measure a plan on the probe part; a plan of one option is a probe of that option."""
        error = judge.error(plan.model)
        alone = [(n, k) for n, k in enumerate(plan.chosen) if k is not None]
        if len(alone) == 1:
            self._sites[alone[0][0]].probe(alone[0][1], error)
        return error

    def _better(self, plan: Plan, best: tuple[Plan, float] | None) -> bool:
        value = self._planning.value
        return best is None or value(plan.chosen) < value(best[0].chosen)

    def _heaviest(self, plan: Plan) -> list[tuple[Site, int]]:
        """Return the sites that carry most of the predicted error, with the options chosen."""
        unmeasured = [
            (site, k)
            for site, k in zip(self._sites, plan.chosen, strict=True)
            if k is not None and not site.measured(k)
        ]
        return sorted(unmeasured, key=lambda s: -s[0].squared(s[1]))[:_MOST_REPROBED]

    def _settle(self, plan: Plan, final: Judge) -> tuple[list[str], float, Plan | None]:
        """Undo the worst error per gain until the final part is within the budget."""
        undone: list[str] = []
        error = final.error(plan.model)
        while error > self._budget:
            # An error over the budget by a factor asks for that much less, and a little more.
            share = _UNDO_MARGIN * (self._budget / error) ** 2
            chosen, what = self._planning.retreat(plan, share)
            undone.append(f"{what} ({error:.3g} on the final part)")
            for site, before, after in zip(self._sites, plan.chosen, chosen, strict=True):
                if before is not None and after is None:
                    site.why = "undone: the final part was over the budget"
            if all(option is None for option in chosen):
                return undone, error, None
            plan = self._planning.build(chosen)
            error = final.error(plan.model)
        return undone, error, plan
