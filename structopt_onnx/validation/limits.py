"""From measured errors to a verdict: what each output may have, and what it has too much of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.validation.tolerances import ROUNDING, SAMPLE_FACTOR, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structopt_onnx.validation.metrics import OutputMetrics
    from structopt_onnx.validation.quanta import Quanta


@dataclass(frozen=True)
class Limits:
    """What the outputs may differ by.

    Attributes
    ----------
    exactness
        What was promised of the outputs that have no budget.
    budgets
        Budgets by output name; the name None stands for all others.
    arithmetic
        Narrowest float format in which the reference computes, where it is known: an output is
        allowed the rounding of that format even if its own is wider.
    quanta
        Quanta that outputs may be off; an output that has some is judged by them, and by its
        budget where it has one too.
    """

    exactness: Exactness
    budgets: Mapping[str | None, float]
    arithmetic: str | None = None
    quanta: Quanta | None = None

    @classmethod
    def of(
        cls,
        max_error: float | Mapping[str, float] | None,
        exactness: Exactness,
        outputs: Iterable[str],
        arithmetic: str | None = None,
        *,
        unlimited: bool = False,
        quanta: Quanta | None = None,
    ) -> Limits:
        """Limits that a user asked for; `unlimited` leaves only problems, such as NaN, to fail.

        Raises
        ------
        UsageError
            A budget is negative or not finite or names no output, or the rewrite is lossy and an
            output has no budget.
        """
        if unlimited:
            return cls(exactness, {None: math.inf}, arithmetic)
        names = set(outputs)
        budgets: dict[str | None, float]
        if isinstance(max_error, Mapping):
            budgets = {name: float(budget) for name, budget in max_error.items()}
            unknown = sorted(set(max_error) - names)
            if unknown:
                raise UsageError(
                    f"max_error names {unknown[0]!r}, but the outputs are {sorted(names)}"
                )
        else:
            budgets = {} if max_error is None else {None: float(max_error)}
        for name, budget in budgets.items():
            if not (math.isfinite(budget) and budget >= 0):
                where = "" if name is None else f" of output {name!r}"
                raise UsageError(f"max_error{where} is {budget}; give a finite number, 0 or more")
        if exactness is Exactness.LOSSY and None not in budgets:
            open_ = sorted(names - {name for name in budgets if name is not None})
            if open_:
                raise UsageError(
                    f"a lossy rewrite needs a max_error, and output {open_[0]!r} has none"
                )
        return cls(exactness, budgets, arithmetic, quanta)

    def budget(self, name: str) -> float | None:
        """Budget that was set for an output; None where its limit follows from its dtype."""
        return self.budgets.get(name, self.budgets.get(None))

    def count(self, metrics: OutputMetrics) -> float | None:
        """Count the quanta that an output is off; None where it has no quantum or no limit."""
        quantum = None if self.quanta is None else self.quanta.by_output.get(metrics.name)
        return None if quantum is None else quantum.of(metrics)

    def limit(self, metrics: OutputMetrics) -> float:
        """Largest error that an output may have; infinite where only its quanta are limited."""
        budget = self.budget(metrics.name)
        if budget is not None:
            return budget
        if self.count(metrics) is not None:
            return math.inf
        own = tolerance(metrics.dtype, self.exactness)
        # An integer has no rounding, in whatever format it was computed.
        return max(own, ROUNDING.get(self.arithmetic or "", 0.0)) if own > 0 else own

    def failures(self, metrics: OutputMetrics) -> tuple[str, ...]:
        """Lines, one per reason why an output is not good enough; empty if it is."""
        output = f"output {metrics.name!r}"
        if metrics.problems:
            return tuple(f"{output}, {problem}" for problem in metrics.problems)
        if metrics.elements and not metrics.compared:
            return (f"{output}: the original gives only NaN or infinity; try other samples",)
        limit = self.limit(metrics)
        lines = []
        count = self.count(metrics)
        if self.quanta is not None and count is not None and count > self.quanta.most:
            lines.append(
                f"{output}: off by {count:.3g} quanta of {self.quanta.by_output[metrics.name]}, "
                f"over the limit {self.quanta.most:.3g} (largest difference {metrics.max_abs:.3g})"
            )
        if metrics.error > limit:
            found = (
                f"share of samples that differ {metrics.error:.3g}"
                if metrics.relative_l2 is None
                else f"relative L2 error {metrics.error:.3g}"
            )
            lines.append(
                f"{output}: {found} is over the limit {limit:.3g} "
                f"(worst in sample {metrics.worst_sample})"
            )
        if self.budget(metrics.name) is not None or count is not None or lines:
            return tuple(lines)
        if self.exactness is Exactness.BITWISE and not metrics.bitwise_equal:
            lines.append(
                f"{output}: bits differ where the same bits were promised (largest difference "
                f"{metrics.max_abs}, sample {metrics.worst_sample})"
            )
            return tuple(lines)
        worst = metrics.worst_sample_relative_l2
        if worst is not None and worst > SAMPLE_FACTOR * limit:
            lines.append(
                f"{output}, sample {metrics.worst_sample}: relative L2 error {worst:.3g} of this "
                f"sample alone is over the limit {SAMPLE_FACTOR * limit:.3g}"
            )
        return tuple(lines)
