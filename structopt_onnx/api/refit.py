"""The refit: last factors of a plan fitted to what really reaches them, kept where it helps.

Factors are fitted one layer at a time, to the original's activations. In the compressed model a
layer reads what the layers before it made of them, and its last factor can make up for some of
their error: least squares from its own inputs to the original's outputs (asymmetric
reconstruction: Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification
and Detection", 2015, section 3.3). It can also fit the samples at hand instead, so what it does is
measured on the probe part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.calibration.paired import Pair, paired_moments
from structopt_onnx.linalg.refit import refitted
from structopt_onnx.linalg.separable import ridge_for
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.report.plan_record import RefitReport
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.manager import Planned
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.record import RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.trials import Trial, Trials
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.rewriting.manager import PassManager

# Factors are fitted in this many rounds at most, in the order of the graph: those of one round
# do not see what the others of it gained.
_MOST_ROUNDS = 8
# Moments of one activation and the other side by side; 128 MiB.
_LARGEST_DIMENSION = 4096
# Multiply-accumulates that a round may take, and samples it gets at least.
# By operations and not by a clock, so that the same run gives the same model.
_ROUND_MACS = 5e11
_LEAST_SAMPLES = 32


@dataclass(frozen=True)
class Refit(Pass):
    """Who signs for the patches; they come of a plan, so it has nothing to propose by itself."""

    name: ClassVar[str] = "refit"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {"superseded": "the factor is gone"}
    canonical: ClassVar[bool] = True  # new numbers cost what the old ones did

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Choice | Refusal]:
        """Yield nothing."""
        del scope, facts
        return iter(())


@dataclass(frozen=True)
class Round:
    """Factors that are fitted together.

    Parameters
    ----------
    label
        Name of the option under which they are recorded.
    weights
        Names of their weights.
    """

    label: str
    weights: tuple[str, ...]


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
        macs = bench.cost(bench.model, bench.shapes).macs
        affordable = int(_ROUND_MACS / max(1, 2 * macs))
        count = min(len(fit), max(_LEAST_SAMPLES, affordable))
        step = len(fit) / max(1, count)
        self._samples = fit.subset([int(n * step) for n in range(count)])

    def rounds(self, model: ir.Model, manager: PassManager) -> list[Round]:
        """Return the factors that the original does not have, first ones of the graph first."""
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
        size = max(1, -(-len(names) // _MOST_ROUNDS))
        parts = [tuple(names[n : n + size]) for n in range(0, len(names), size)]
        return [Round(f"round {number}", part) for number, part in enumerate(parts, 1)]

    def fitted(self, model: ir.Model, manager: PassManager, part: Round) -> list[Planned]:
        """Fit a round's factors to the model as it stands; return what writes them."""
        facts = manager.facts(model)
        scope = facts.scopes[0]
        factors = [last_factor(name, scope, facts) for name in part.weights]
        pairs = {Pair(f.read, f.made): f for f in factors if isinstance(f, LastFactor)}
        moments = paired_moments(
            model,
            self._original,
            self._samples,
            list(pairs),
            threads=self._bench.options.threads,
            libraries=self._bench.options.libraries,
        )
        return [_planned(pairs[pair], seen, part.label) for pair, seen in moments.items()]


def _planned(factor: LastFactor, seen: Moments, label: str) -> Planned:
    old = factor.factor()
    ridge = ridge_for(seen.count / old.shape[1])
    free = factor.addend is not None
    found, bias = refitted(old, factor.bias, seen, ridge=ridge, free=free)
    name = factor.weight.name or ""

    def patch(scope: Scope, facts: Facts) -> Patch | Refusal:
        now = last_factor(name, scope, facts)
        if isinstance(now, Refusal):
            return now
        if now.factor().shape != found.shape or (now.addend is None) == free:
            return Refusal("superseded", "it is not what was fitted", name)
        return now.written(scope, found, bias)

    nothing = Cost()
    option = Option(label, 0.0, nothing, nothing, patch)
    site = frozenset({name})
    return Planned(Refit(), Choice(site, factor.made.values[0], (option,), "calibration"), option)


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
class Recovered:
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


class Recovery:
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
        self._last: Recovered | None = None

    def of(self, trial: Trial) -> Recovered:
        """Return a plan after its refit; the last one is kept at hand."""
        if self._last is None or self._last.trial.chosen != trial.chosen:
            self._last = self._recover(trial)
        return self._last

    def _recover(self, trial: Trial) -> Recovered:
        plan = self._trials.plan(trial)
        now, measured = Refitted(plan.model, plan.manager), trial.measured
        if self._refitting is None:
            return Recovered(trial, now)
        options = self._bench.options
        rounds = self._refitting.rounds(now.model, now.manager)
        for part in rounds:
            if self._trials.over():
                break
            self._bench.progress(f"refit: {part.label} of {len(rounds)}")
            tried = now.with_round(self._refitting.fitted(now.model, now.manager, part))
            found = self._trials.measure(tried.model)
            holds = found.within(options) or not measured.within(options)
            if found.error < measured.error and holds:
                now, measured = tried, found
        report = RefitReport(
            factors=sum(len(part.weights) for part in rounds),
            kept=len(now.planned),
            before=trial.measured.error,
            after=measured.error,
        )
        after = replace(trial, measured=measured)
        return Recovered(after, now, report if rounds else None)
