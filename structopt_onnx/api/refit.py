"""The refit: factors of a plan fitted to what really reaches them, kept where it helps.

Factors are fitted one layer at a time, to the original's activations. In the compressed model a
layer reads what the layers before it made of them, and its factors can make up for some of their
error: from its own inputs to the original's outputs (asymmetric reconstruction: Zhang et al.,
"Accelerating Very Deep Convolutional Networks for Classification and Detection", 2015, section
3.3). They can also fit the samples at hand instead, so each way of doing it is measured on the
probe part, and the best one is kept where it lowers the error there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.api.refit_fits import KINDS, LAST, Fitting
from structopt_onnx.calibration.paired import paired_moments
from structopt_onnx.calibration.paired_rows import paired_rows
from structopt_onnx.calibration.streaming import grouped
from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.report.plan_record import RefitReport, RefitRound
from structopt_onnx.rewriting.record import RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.refit_fits import Array, Rows
    from structopt_onnx.api.trials import Trial, Trials
    from structopt_onnx.calibration.paired import Pair
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.rewriting.manager import PassManager, Planned

# Factors are fitted in rounds, in the order of the graph: those of one round do not see what the
# others of it gained, and are kept together or not at all. There are this many rounds at most, or
# as many more as candidates can be measured with these multiply-accumulates.
_MOST_ROUNDS = 8
_MEASURED_MACS = 2e12
# Moments of one activation and the other side by side; 128 MiB.
_LARGEST_DIMENSION = 4096
# Multiply-accumulates that a round may take, and samples it gets at least.
# By operations and not by a clock, so that the same run gives the same model.
_ROUND_MACS = 5e11
_LEAST_SAMPLES = 32


@dataclass(frozen=True)
class Round:
    """Factors that are fitted together.

    Parameters
    ----------
    number
        From 1 on.
    weights
        Names of the last factors' weights.
    """

    number: int
    weights: tuple[str, ...]

    def label(self, kind: str) -> str:
        """Return the name of the option under which they are recorded."""
        return f"round {self.number}: {kind}"

    @classmethod
    def recorded(cls, label: str, weights: tuple[str, ...]) -> tuple[Round, str]:
        """Return the round and the kind of fit that a record names."""
        number, _, kind = label.removeprefix("round ").partition(": ")
        return cls(int(number), weights), kind


class Refitting:
    """Fits the last factors of a model anew, round by round.

    Parameters
    ----------
    bench, exact
        The run, and the model whose activations are the aim.
    fit
        The samples that may be fitted to.
    """

    def __init__(self, bench: Bench, exact: ExactStage, fit: Samples) -> None:
        self._bench = bench
        self._original = exact.model
        self._macs = bench.cost(bench.model, bench.shapes).macs
        affordable = int(_ROUND_MACS / max(1, 2 * self._macs))
        count = min(len(fit), max(_LEAST_SAMPLES, affordable))
        step = len(fit) / max(1, count)
        self._samples = fit.subset([int(n * step) for n in range(count)])

    def rounds(self, model: ir.Model, manager: PassManager, measured_on: int) -> list[Round]:
        """Return the factors that the original does not have, first ones of the graph first.

        Parameters
        ----------
        model, manager
            The plan's.
        measured_on
            Samples that every candidate is measured on.
        """
        facts = manager.facts(model)
        scope, known = facts.scopes[0], self._original.graph.initializers
        made = {output.name for node in self._original.graph for output in node.outputs}
        order = {node: position for position, node in enumerate(model.graph)}
        found = [
            factor
            for name in model.graph.initializers
            if name not in known
            and isinstance(factor := last_factor(name, scope, facts), LastFactor)
            and factor.made.values[0] in made
            and sum(factor.factor().shape) <= _LARGEST_DIMENSION
        ]
        names = [f.weight.name or "" for f in sorted(found, key=lambda f: order[f.node])]
        measurable = int(_MEASURED_MACS / max(1, self._macs * measured_on * len(KINDS)))
        size = max(1, -(-len(names) // max(_MOST_ROUNDS, measurable)))
        parts = [tuple(names[n : n + size]) for n in range(0, len(names), size)]
        return [Round(number, part) for number, part in enumerate(parts, 1)]

    def candidates(
        self, model: ir.Model, manager: PassManager, part: Round, kinds: Sequence[str] = KINDS
    ) -> Iterator[tuple[str, list[Planned]]]:
        """Fit a round's factors to the model as it stands; yield the kind, and what writes them."""
        facts = manager.facts(model)
        known = [Fitting.of(name, facts.scopes[0], facts) for name in part.weights]
        fittings = [fitting for fitting in known if fitting is not None]
        lasts = self._lasts(model, fittings)
        rows = {} if tuple(kinds) == (LAST,) else self._rows(model, fittings)
        for kind in kinds:
            if any(f.allows(kind) for f in fittings):
                label = part.label(kind)
                found = [f.planned(kind, label, lasts.get(f.seen), rows) for f in fittings]
                yield kind, [planned for planned in found if planned is not None]

    def _lasts(
        self, model: ir.Model, fittings: Sequence[Fitting]
    ) -> dict[Pair, tuple[Array, Array]]:
        """Fit last factors alone; moments are gathered in groups within the bound of memory."""
        by_pair = {f.seen: f for f in fittings}
        sizes = {
            pair: MomentsAccumulator.nbytes(sum(f.last.factor().shape))
            for pair, f in by_pair.items()
        }
        return {
            pair: by_pair[pair].by_moments(moments)
            for group in grouped(sizes.items(), self._bench.statistics_bytes)
            for pair, moments in paired_moments(
                model,
                self._original,
                self._samples,
                group,
                threads=self._bench.options.threads,
                libraries=self._bench.options.libraries,
            )
        }

    def _rows(self, model: ir.Model, fittings: Sequence[Fitting]) -> dict[Pair, Rows]:
        each = self._bench.statistics_bytes // max(1, len(fittings))
        most = {f.observed: f.most(each) for f in fittings if f.observed is not None}
        if not most:
            return {}
        return paired_rows(
            model,
            self._original,
            self._samples,
            most,
            seed=self._bench.options.seed,
            threads=self._bench.options.threads,
            libraries=self._bench.options.libraries,
        )


@dataclass(frozen=True)
class Refitted:
    """A plan's model with the rounds kept so far.

    Parameters
    ----------
    model, manager
        The model, and the manager that made it.
    planned
        What was written, in order.
    """

    model: ir.Model
    manager: PassManager
    planned: tuple[Planned, ...] = ()

    def with_round(self, planned: Sequence[Planned]) -> Refitted:
        """Apply what a round fitted to a clone."""
        record = self.manager.record
        manager = replace(
            self.manager,
            record=RewriteRecord(list(record.applied), list(record.refused), record.sweeps),
        )
        model = self.model.clone()
        done = manager.apply_plan(model, planned)
        return Refitted(model, manager, (*self.planned, *done))


@dataclass(frozen=True)
class RefittedTrial:
    """A plan after its refit.

    Parameters
    ----------
    trial
        The plan, with what it does on the probe part now.
    refitted
        The model.
    report
        What was tried; None where nothing could be.
    """

    trial: Trial
    refitted: Refitted
    report: RefitReport | None = None


class Refits:
    """Refits plans and keeps every round that lowers the error on the probe part.

    Parameters
    ----------
    bench, trials
        The run, and what builds and measures plans.
    refitting
        What fits; None leaves plans as they are.
    """

    def __init__(self, bench: Bench, trials: Trials, refitting: Refitting | None) -> None:
        self._bench = bench
        self._trials = trials
        self._refitting = refitting
        self._last: RefittedTrial | None = None

    def of(self, trial: Trial) -> RefittedTrial:
        """Return a plan after its refit; the last one is kept at hand."""
        if self._last is None or self._last.trial.chosen != trial.chosen:
            self._last = self._refit(trial)
        return self._last

    def _refit(self, trial: Trial) -> RefittedTrial:
        plan = self._trials.plan(trial)
        now, measured = Refitted(plan.model, plan.manager), trial.measured
        if self._refitting is None:
            return RefittedTrial(trial, now)
        options = self._bench.options
        rounds = self._refitting.rounds(now.model, now.manager, len(self._trials.samples))
        told: list[RefitRound] = []
        for part in rounds:
            if self._trials.over():
                break
            self._bench.progress(f"refit: {part.number} of {len(rounds)}")
            before, kept, start = measured.error, "", now
            for kind, planned in self._refitting.candidates(start.model, start.manager, part):
                tried = start.with_round(planned)
                found = self._trials.measure(tried.model)
                holds = found.within(options) or not measured.within(options)
                if found.error < measured.error and holds:
                    now, measured, kept = tried, found, kind
            told.append(RefitRound(part.weights, kept, before, measured.error))
        report = RefitReport(
            factors=sum(len(part.weights) for part in rounds),
            kept=len(now.planned),
            before=trial.measured.error,
            after=measured.error,
            rounds=tuple(told),
        )
        after = replace(trial, measured=measured)
        return RefittedTrial(after, now, report if rounds else None)
