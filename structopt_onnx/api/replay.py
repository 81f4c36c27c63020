"""Replay: the rewrites of an earlier run applied to the original again, without a new plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from structopt_onnx.api.exact import ExactStage
from structopt_onnx.api.recover import Recover, written
from structopt_onnx.api.refit import Refitted, Refitting, Round
from structopt_onnx.api.refit_fits import Refit
from structopt_onnx.api.replay_record import (
    RECORD_KEY,
    LossyStep,
    ReplayRecord,
    decode,
    digest,
    encode,
    fingerprint,
)
from structopt_onnx.api.sites import Site, collect_sites
from structopt_onnx.errors import UsageError
from structopt_onnx.rewriting.manager import Planned
from structopt_onnx.rewriting.record import Applied, RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.calibration.samples import Samples

__all__ = [
    "RECORD_KEY",
    "Replay",
    "ReplayRecord",
    "decode",
    "digest",
    "encode",
    "fingerprint",
    "replay",
]


class Replay:
    """Applies the first patches of a record to the original, as many as asked for.

    What does not depend on the number is done once: the exact passes before the lossy ones, and
    the statistics that those are fitted by.

    Parameters
    ----------
    bench
        The original, with the samples and options of the record.
    record
        What was applied.
    made
        The model that carries the record: weights that were fine-tuned are taken from it.
    """

    def __init__(self, bench: Bench, record: ReplayRecord, made: ir.Model | None = None) -> None:
        self._bench = bench
        self.record = record
        self._made = made
        self._base: tuple[ExactStage, list[Planned]] | None = None

    def run(self, count: int) -> tuple[ir.Model, tuple[Applied, ...]]:
        """Return the model with the first `count` patches, and these.

        Raises
        ------
        UsageError
            When a lossy step of the record is not on offer again.
        """
        exact_count = self.record.exact_count
        if count <= exact_count:
            stage = self._exact(count)
            return stage.model, tuple(stage.manager.record.applied)
        if self._base is None:
            samples = self._bench.samples
            fit = samples if self._bench.blind else samples.split()[0]
            fitted = self._exact(self.record.fitted_after)
            sites = collect_sites(self._bench, fitted, fit)
            self._base = self._exact(exact_count), self._lossy(fitted, sites, fit)
        stage, planned = self._base
        done = stage.manager.record
        manager = replace(
            self._bench.manager(stage.deny, count - exact_count),
            record=RewriteRecord(list(done.applied), list(done.refused), done.sweeps),
        )
        model = stage.model.clone()
        manager.apply_plan(model, planned)
        if count > exact_count + len(self.record.lossy):
            model = manager.run(model, self._bench.exact_steps)
            model = manager.run(model, self._bench.encoding_steps)
        return model, tuple(manager.record.applied)

    def _exact(self, fuel: int) -> ExactStage:
        deny = frozenset(self.record.deny)
        manager = self._bench.manager(deny, fuel)
        model = manager.run(self._bench.model.clone(), self._bench.exact_steps)
        if not self.record.lossy:
            model = manager.run(model, self._bench.encoding_steps)
        return ExactStage(model, manager, deny, ())

    def _lossy(self, fitted: ExactStage, sites: Sequence[Site], fit: Samples) -> list[Planned]:
        """Return the lossy steps; what was refitted is fitted again on the model of the run."""
        steps = self.record.lossy
        written_later = (Refit.name, Recover.name)
        planned = [self._planned(step, sites) for step in steps if step.step not in written_later]
        tuned = [self._tuned(step) for step in steps if step.step == Recover.name]
        refits = [step for step in steps if step.step == Refit.name]
        if not refits:
            return [*planned, *tuned]
        model, manager = fitted.model.clone(), self._bench.manager(fitted.deny)
        manager.apply_plan(model, planned)
        now = Refitted(model, manager)
        refitting = Refitting(self._bench, fitted, fit)
        for label, part in groupby(refits, lambda step: step.option):
            weights = tuple(name for step in part for name in step.site)
            round_, kind = Round.recorded(label or "", weights)
            for _, fitted_again in refitting.candidates(now.model, manager, round_, (kind,)):
                now = now.with_round(fitted_again)
        return [*planned, *now.planned, *tuned]

    def _tuned(self, step: LossyStep) -> Planned:
        held = {} if self._made is None else self._made.graph.initializers
        tensors = {name: held[name].const_value for name in step.site if name in held}
        weights = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
        if len(weights) < len(step.site):
            raise UsageError(
                f"{self._bench.name}: the weights that were fine-tuned are no longer in the "
                "optimized model; optimize again without sparse encodings"
            )
        return written(weights)

    def _planned(self, step: LossyStep, sites: Sequence[Site]) -> Planned:
        weights = "+".join(step.site)
        found = [
            Planned(site.step, site.choice, option)
            for site in sites
            if site.step.name == step.step and site.choice.site == frozenset(step.site)
            for option in site.choice.options
            if option.label == step.option
        ]
        if len(found) != 1:
            many = "no longer offered" if not found else "offered by several steps of the pipeline"
            raise UsageError(
                f"{self._bench.name}: the record's {step.step} of {weights} at {step.option} is "
                f"{many}; give the model and the calibration data of the recorded run, and version "
                f"{self.record.version} of structopt-onnx"
            )
        return found[0]


def replay(bench: Bench, record: ReplayRecord, count: int) -> ir.Model:
    """Return the original with the first `count` patches of a record; see `Replay`."""
    return Replay(bench, record).run(count)[0]
