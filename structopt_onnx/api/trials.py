"""Trials: what single options and whole plans do to the outputs, on the probe part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.api.judge import Judge
from structopt_onnx.model.tensors import let_go

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.judge import Measured
    from structopt_onnx.api.plans import Chosen, Plan, Planning
    from structopt_onnx.api.sites import Site
    from structopt_onnx.calibration.samples import Samples

# Sites probed again after a plan that missed.
_MOST_REPROBED = 8
# Multiply-accumulates that the first probes together may take, and samples they get at least.
# By operations and not by a clock, so that the same run gives the same plan.
_PROBE_MACS = 2e12
_LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Trial:
    """A plan without its model, which would take memory for every plan tried.

    Parameters
    ----------
    chosen
        The options that could be applied.
    measured
        What they did on the probe part.
    summed
        What errors of single sites, in quadrature, had said before.
    """

    chosen: Chosen
    measured: Measured
    summed: float

    @property
    def empty(self) -> bool:
        """Whether nothing lossy is in it."""
        return all(k is None for k in self.chosen)


class Trials:
    """Tries options and plans on the probe part, and lets the sites learn from it.

    Parameters
    ----------
    bench, planning
        The run, and what builds models for it.
    samples
        The probe part.
    """

    def __init__(self, bench: Bench, planning: Planning, samples: Samples) -> None:
        self._bench = bench
        self.planning = planning
        self._judge = Judge(bench, samples, cautious=True)
        self._judge_alone = self._judge
        self.samples = samples
        self._seen: dict[Chosen, Trial] = {}
        self._last: Plan | None = None
        self.rounds = 0
        self.probed_on = len(samples)

    def up_to_the_limit(self) -> None:
        """Let plans come as near to a metric's limit as there is, where none is clear of it."""
        self._judge.cautious = False
        self._seen = {
            chosen: replace(trial, measured=replace(trial.measured, margin=0.0))
            for chosen, trial in self._seen.items()
        }

    def over(self) -> bool:
        """Whether the time for looking is up."""
        return self._bench.clock.over()

    def probe_all(self) -> None:
        """Measure every site alone, on fewer samples where the model is slow."""
        sites = self.planning.sites
        self._judge_alone = self._few(len(sites))
        for number, site in enumerate(sites, 1):
            self._bench.progress(f"probe {number}/{len(sites)}: {site.label}")
            if self.over():
                site.why = "not probed: the time limit was reached"
            else:
                self.alone(site)

    def _few(self, sites: int) -> Judge:
        macs = self._bench.cost(self._bench.model, self._bench.shapes).macs
        affordable = int(_PROBE_MACS / max(1, macs * sites))
        count = min(len(self.samples), max(_LEAST_SAMPLES, affordable))
        if count == len(self.samples):
            return self._judge
        self.probed_on = count
        step = len(self.samples) / count
        return Judge(self._bench, self.samples.subset([int(n * step) for n in range(count)]))

    def alone(self, site: Site, k: int | None = None) -> None:
        """Measure what one option, by default at about half cost, does to the outputs."""
        objective = self._bench.options.objective
        k = site.probed_option(objective) if k is None else k
        if k is None:
            site.why = site.unpaying(objective)
            return
        sites = self.planning.sites
        plan = self.planning.build([k if other is site else None for other in sites])
        if all(chosen is None for chosen in plan.chosen):
            site.why = "refused: " + _last_refusal(plan)
            return
        site.probe(k, self._judge_alone.error(plan.model))
        let_go(plan.model)
        mildest = site.mildest(objective)
        if not math.isfinite(site.probes[k]) and mildest not in (k, None):
            self.alone(site, mildest)

    def of(self, chosen: Chosen) -> Trial:
        """Build a plan and measure it; one that was tried before is not measured again."""
        if chosen not in self._seen:
            self.rounds += 1
            self._bench.progress(f"plan {self.rounds}")
            self._last = plan = self.planning.build(chosen)
            summed = self.planning.predicted(plan.chosen)
            trial = Trial(plan.chosen, self._judge.measure(plan.model), summed)
            alone = [(n, k) for n, k in enumerate(plan.chosen) if k is not None]
            if len(alone) == 1:
                # A plan of one option is a probe of that option.
                self.planning.sites[alone[0][0]].probe(alone[0][1], trial.measured.error)
            self._seen[chosen] = self._seen[plan.chosen] = trial
        return self._seen[chosen]

    def plan(self, trial: Trial) -> Plan:
        """Return the model of a trial, built again unless it was the last one."""
        if self._last is None or self._last.chosen != trial.chosen:
            self._last = self.planning.build(trial.chosen)
        return self._last

    def measure(self, model: ir.Model) -> Measured:
        """Measure a model on the probe part."""
        return self._judge.measure(model)

    def measured(self) -> tuple[Trial, ...]:
        """Return every plan that was measured, in order."""
        return tuple({trial.chosen: trial for trial in self._seen.values()}.values())

    def tried(self, chosen: Chosen) -> bool:
        """Whether a plan was measured."""
        return chosen in self._seen

    def reprobe(self, trial: Trial) -> None:
        """Probe the sites that carry most of the predicted error at the options chosen."""
        unmeasured = [
            (site, k)
            for site, k in zip(self.planning.sites, trial.chosen, strict=True)
            if k is not None and not site.measured(k)
        ]
        heaviest = sorted(unmeasured, key=lambda s: -s[0].squared(s[1]))[:_MOST_REPROBED]
        for site, k in heaviest:
            self.alone(site, k)


def _last_refusal(plan: Plan) -> str:
    refused = plan.manager.record.refused
    return f"{refused[-1].refusal.code}" if refused else "the edit was not admitted"
