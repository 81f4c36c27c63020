"""Sites of lossy rewrites: what passes offer, and what a probe said about them."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from structopt_onnx.calibration.streaming import StreamedMoments
from structopt_onnx.report.plan_record import OptionReport, SiteReport
from structopt_onnx.report.spectrum import thinned
from structopt_onnx.rewriting.cost import spared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.rewriting.cost import Objective
    from structopt_onnx.rewriting.passes import Choice, Pass

# The share of a layer's energy below which a cut counts as free of error: the square of a
# singular value 1e-6 times the strongest.
_RANK_DEFICIENT = 1e-12
# A probe that shows no error at all still counts as this much, so that it can be scaled.
_LEAST_ERROR = 1e-9


@dataclass
class Site:
    """One choice and what is known of its effect on the outputs.

    Parameters
    ----------
    step, choice
        The pass and what it offers.
    exact_only
        Whether only numerically rank-deficient cuts are allowed (no calibration data).
    why
        What became of it.
    """

    step: Pass
    choice: Choice
    exact_only: bool = False
    why: str = ""
    probes: dict[int, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the names of the weights."""
        return "+".join(sorted(self.choice.site))

    def option_label(self, k: int | None) -> str:
        """Return the label of an option, ``none`` for None."""
        return "none" if k is None else self.choice.options[k].label

    def saving(self, k: int, objective: Objective) -> float:
        """Return the change of cost that option `k` brings; negative is good."""
        option = self.choice.options[k]
        return option.after.of(objective) - option.before.of(objective)

    def squared(self, k: int) -> float:
        """Return the predicted squared error at the outputs of option `k` alone.

        Between two probes it follows the power of the local error that joins them, beyond them it
        is in proportion to the local error, by the probe nearest to it.
        """
        if k in self.probes:
            return self.probes[k] ** 2
        wanted = math.log(self._local(k))
        known = sorted(
            (math.log(self._local(p)), 2 * math.log(max(error, _LEAST_ERROR)))
            for p, error in self.probes.items()
            if math.isfinite(error)
        )
        if not known:
            return math.inf
        below = [point for point in known if point[0] <= wanted]
        above = [point for point in known if point[0] > wanted]
        if not below or not above:
            local, error = (below or above)[-1 if below else 0]
            return math.exp(error + wanted - local)
        (local, error), (end, most) = below[-1], above[0]
        return math.exp(error + (most - error) * (wanted - local) / (end - local))

    def _local(self, k: int) -> float:
        return max(self.choice.options[k].error, _RANK_DEFICIENT)

    def measured(self, k: int) -> bool:
        """Whether option `k` was probed."""
        return k in self.probes

    def usable(self, objective: Objective) -> list[int]:
        """Return the options that lower the cost and that the plan may take."""
        return self._paying(objective) if self.probes else []

    def allowed(self, k: int) -> bool:
        """Whether option `k` may be taken at all: without calibration data only free cuts."""
        return not self.exact_only or self.choice.options[k].error <= _RANK_DEFICIENT

    def _paying(self, objective: Objective) -> list[int]:
        every = range(len(self.choice.options))
        return [k for k in every if self.saving(k, objective) < 0 and self.allowed(k)]

    def unpaying(self, objective: Objective) -> str:
        """Say why no option may be taken."""
        if any(self.saving(k, objective) < 0 for k in range(len(self.choice.options))):
            return "no calibration data, and no cut that is numerically free"
        return "no option lowers the cost"

    def probed_option(self, objective: Objective) -> int | None:
        """Return the option whose cost is nearest to half, among those that pay."""
        paying = self._paying(objective)
        if not paying:
            return None
        half = self.choice.options[0].before.of(objective) / 2
        return min(paying, key=lambda k: abs(self.choice.options[k].after.of(objective) - half))

    def mildest(self, objective: Objective) -> int | None:
        """Return the option of least local error among those that pay."""
        return min(self._paying(objective), key=self._local, default=None)

    def probe(self, k: int, error: float) -> None:
        """Learn from the error that option `k` alone caused at the outputs."""
        self.probes[k] = error

    def least(self, objective: Objective) -> tuple[str, float] | None:
        """Return label and predicted error of the option that pays with the least error."""
        usable = self.usable(objective)
        if not usable:
            return None
        k = min(usable, key=self.squared)
        return self.choice.options[k].label, math.sqrt(self.squared(k))

    def explain(
        self, chosen: int | None, budget: float | None, objective: Objective, otherwise: str
    ) -> None:
        """Say in `why` what became of the site, unless that is known already.

        Parameters
        ----------
        chosen, budget, objective
            The option in the plan, the error allowed, what is minimized.
        otherwise
            What to say of a site that is left alone though it is within the budget.
        """
        least = self.least(objective)
        if chosen is not None:
            self.why = "chosen"
        elif self.why:
            return
        elif least is None:
            self.why = self.unpaying(objective)
        elif budget is None or least[1] <= budget:
            self.why = otherwise
        else:
            self.why = f"least predicted error {least[1]:.3g} is over the budget"

    def report(self, chosen: int | None, objective: Objective) -> SiteReport:
        """Return the site's part of the report."""
        options = self.choice.options
        return SiteReport(
            self.step.name,
            tuple(sorted(self.choice.site)),
            self.choice.measured_at,
            self.choice.basis,
            options[0].before,
            tuple((options[k].label, error) for k, error in sorted(self.probes.items())),
            tuple(
                OptionReport(
                    option.label,
                    option.error,
                    None if not self.probes else math.sqrt(self.squared(k)),
                    option.after,
                    option.rank,
                )
                for k, option in enumerate(options)
                if self.saving(k, objective) < 0
            ),
            None if chosen is None else options[chosen].label,
            self.why,
            self.choice.support,
            thinned(self.choice.spectrum),
        )


def collect_sites(bench: Bench, exact: ExactStage, fit: Samples) -> list[Site]:
    """Gather statistics on the fit part and collect what the lossy passes offer.

    Without the user's samples, and unless made-up ones are allowed, nothing is gathered and
    only cuts of what is numerically zero are on offer.
    """
    with nullcontext() if bench.blind else statistics_of(bench, exact, fit, bench.lossy_steps):
        sites = [
            Site(step, choice, exact_only=bench.blind)
            for step in bench.lossy_steps
            for choice in exact.manager.choices(exact.model, step)
        ]
    for site in sites if bench.encodes else ():
        if not site.step.counts_zeros:
            site.choice = _encoded(site.choice, exact.model)
    return sites


def _encoded(choice: Choice, model: ir.Model) -> Choice:
    """Count weights by what they take encoded, and what a choice makes of them as dense."""
    held = (model.graph.initializers.get(name) for name in choice.site)
    less = spared(v.const_value for v in held if v is not None and v.const_value is not None)
    options = tuple(replace(option, before=option.before + less) for option in choice.options)
    return replace(choice, options=options)


@contextmanager
def statistics_of(
    bench: Bench, exact: ExactStage, samples: Samples, steps: Sequence[Pass]
) -> Iterator[bool]:
    """Let the exact stage's manager gather what passes ask for; yield whether it is anything.

    The options that passes offer hold what they were fitted to, and the moments are let go.
    """
    bench.progress("statistics")
    facts = exact.manager.facts(exact.model)
    wanted = dict.fromkeys(
        statistic
        for step in steps
        for scope in facts.scopes
        for statistic in step.needs(scope, facts)
    )
    exact.manager.statistics = moments = StreamedMoments(
        exact.model,
        samples,
        wanted,
        max_bytes=bench.statistics_bytes,
        threads=bench.options.threads,
        libraries=bench.options.libraries,
    )
    try:
        yield bool(wanted)
    finally:
        exact.manager.statistics = {}
        moments.forget()  # the facts that passes were given are in a cycle with it
