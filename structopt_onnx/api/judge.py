"""How far a candidate is from the original on one part of the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.validation.metrics import OutputComparison

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.runtime.session import Feeds

# Reference outputs are kept when they are smaller than this, and computed again when not.
_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Measured:
    """What a judge found.

    Parameters
    ----------
    error
        Largest error over the outputs; infinite where the candidate can't be run.
    spread
        Standard error of it, by how samples differ; None where there is one sample, or no number.
    metric, original
        The task metric of the candidate and of the original; None without a metric.
    decisions
        For the built-in agreement: output, what counts as a decision there, and how many.
    margin
        What is kept clear of the limit on the metric, because other samples will differ.
    """

    error: float
    spread: float | None = None
    metric: float | None = None
    original: float | None = None
    decisions: tuple[tuple[str, str, int], ...] = ()
    margin: float = 0.0

    @property
    def drop(self) -> float | None:
        """How much of the metric is lost; negative where it got better."""
        if self.metric is None or self.original is None:
            return None
        return self.original - self.metric

    def within(self, options: OptimizeOptions) -> bool:
        """Whether the limits that the user set hold; without any, whether it runs at all."""
        limit, most = options.max_error, options.max_drop
        if not math.isfinite(self.error) or (limit is not None and self.error > limit):
            return False
        return most is None or (self.drop is not None and self.drop + self.margin <= most)

    def excess(self, options: OptimizeOptions) -> str:
        """Say which limit does not hold."""
        limit = options.max_error
        if not math.isfinite(self.error) or (limit is not None and self.error > limit):
            over = "" if limit is None else f" is over the limit {limit:g}"
            return f"error {self.error:.3g}{over}"
        clear = f" with a standard error of {self.margin:.3g}" if self.margin else ""
        return f"metric drop {self.drop:.3g}{clear} is over the limit {options.max_drop:g}"


class Judge:
    """Measures candidates against the original on the same samples.

    Parameters
    ----------
    bench
        Gives the original and the task metric.
    samples
        The part of the samples to judge by.
    cautious
        Whether a limit on the metric must be kept by a standard error, where that is known: of
        plans that were chosen for what they do on a part, most do worse on another.
    """

    def __init__(self, bench: Bench, samples: Samples, *, cautious: bool = False) -> None:
        self.cautious = cautious
        self._bench = bench
        self._samples = samples
        # The user's metric may join samples, or count on their length.
        self._given = samples.as_given()
        self._kept: list[dict[str, Any]] | None = None
        self._original: float | None = None
        self.evaluations = 0

    def error(self, candidate: ir.Model) -> float:
        """Return the largest error over the outputs; infinite where it can't be run."""
        return self.measure(candidate, metric=False).error

    def measure(self, candidate: ir.Model | Path, *, metric: bool = True) -> Measured:
        """Run a candidate on every sample.

        Parameters
        ----------
        candidate
            The model.
        metric
            Whether to compute the task metric too, where there is one.

        Raises
        ------
        UsageError
            When the metric fails on the original.
        """
        self.evaluations += 1
        task = self._bench.metric if metric else None
        original = None if task is None else self._metric_of_original()
        nothing = Measured(math.inf, metric=None if task is None else -math.inf, original=original)
        try:
            session = self._bench.session(candidate)
        except ModelError:
            return nothing  # the runtime refuses it: as wrong as can be
        comparisons = {info.name: OutputComparison(info.name) for info in session.outputs}
        counts = task.agreement(session) if task is not None and task.function is None else {}
        for feeds, expected in self._references():
            try:
                found = session.run(feeds)
            except ModelError:
                return nothing
            for name, array in expected.items():
                comparisons[name].update(array, found[name])
                if name in counts:
                    counts[name].update(array, found[name])
        worst = max((c.result() for c in comparisons.values()), key=lambda found: found.error)
        error, spread = worst.error, worst.standard_error
        if task is None:
            return Measured(error, spread)
        if not math.isfinite(error):
            return replace(nothing, error=error)
        if task.function is not None:
            return Measured(error, spread, task.of_candidate(session, self._given), original)
        shares = {name: share for name, c in counts.items() if (share := c.share()) is not None}
        if not shares:
            raise UsageError(f"metric {task.name}: no output decides anything")
        decisions = tuple((n, counts[n].decision, counts[n].decisions) for n in shares)
        least = min(shares, key=shares.__getitem__)
        margin = counts[least].standard_error() if self.cautious else 0.0
        return Measured(error, spread, shares[least], original, decisions, margin)

    def _metric_of_original(self) -> float | None:
        task = self._bench.metric
        if task is not None and self._original is None:
            session = self._bench.session(self._bench.reference)
            self._original = task.of_original(session, self._given)
        return self._original

    def _references(self) -> Iterable[tuple[Feeds, dict[str, Any]]]:
        if self._kept is not None:
            yield from zip(self._samples, self._kept, strict=True)
            return
        reference = self._bench.session(self._bench.reference)
        outputs: list[dict[str, Any]] = []
        size = 0
        for feeds in self._samples:
            expected = reference.run(feeds)
            size += sum(getattr(array, "nbytes", 0) for array in expected.values())
            if size <= _KEPT_BYTES:
                outputs.append(expected)
            yield feeds, expected
        if size <= _KEPT_BYTES:
            self._kept = outputs
