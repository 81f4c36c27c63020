"""The lossy part of a run's record: sites, options, budgets, what was predicted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.report.curve_record import Curve
    from structopt_onnx.rewriting.cost import Cost, Objective


@dataclass(frozen=True)
class OptionReport:
    """One option of a site.

    Parameters
    ----------
    label
        Such as ``rank 48``.
    local_error
        Predicted relative mean squared error where the site is measured.
    output_error
        Predicted relative L2 error it alone causes at the model's outputs; None before probing.
    cost
        Cost of the site's region with it.
    rank
        Directions of the site's spectrum that it keeps; 0 where it is no cut of them.
    """

    label: str
    local_error: float
    output_error: float | None
    cost: Cost
    rank: int = 0


@dataclass(frozen=True)
class SiteReport:
    """What the planner saw at one site and did about it.

    Parameters
    ----------
    step
        Name of the pass.
    weights
        Names of the weights.
    measured_at
        Name of the value where the local error is defined.
    basis
        What the predictions rest on: ``calibration`` or ``weights``.
    cost
        Cost of the region as it was.
    probes
        Labels of the options tried alone, and the errors they caused at the outputs.
    options
        All options, from the smallest.
    support
        Observations per dimension behind a calibrated fit; 0 without data.
    chosen
        Label of the option applied, or None.
    why
        The reason for the choice, in a few words.
    spectrum
        Numbers of directions of the output and the share of its energy along each, the most
        important first; at most 64, closer together where they matter. Empty where there is none.
    """

    step: str
    weights: tuple[str, ...]
    measured_at: str
    basis: str
    cost: Cost
    probes: tuple[tuple[str, float], ...]
    options: tuple[OptionReport, ...]
    chosen: str | None
    why: str
    support: float = 0.0
    spectrum: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class MetricReport:
    """A task metric of the original and of what is handed over; higher is better.

    Parameters
    ----------
    name
        What the user calls it.
    max_drop
        How much of it may be lost.
    probe, probe_original, final, final_original
        Its values with and without the plan on both parts; None when nothing was applied.
    decisions
        For the built-in agreement: output, what counts as a decision there, and how many were
        counted on the final part.
    """

    name: str
    max_drop: float
    probe: float | None = None
    probe_original: float | None = None
    final: float | None = None
    final_original: float | None = None
    decisions: tuple[tuple[str, str, int], ...] = ()

    @property
    def drop(self) -> float | None:
        """What was lost on the final part; negative where it got better."""
        if self.final is None or self.final_original is None:
            return None
        return self.final_original - self.final


@dataclass(frozen=True)
class KeepReport:
    """A budget of cost.

    Parameters
    ----------
    objective, share
        What is to be left: at most this share of the original model's.
    reached
        The share that is left; None when nothing lossy was applied.
    sites
        The share left of the cost of all lossy sites.
    """

    objective: Objective
    share: float
    reached: float | None = None
    sites: float | None = None


@dataclass(frozen=True)
class CostReport:
    """How the seconds of options were measured.

    Parameters
    ----------
    regions
        Distinct regions, each a few operators of given shapes, that options come down to.
    measured, cached
        How many of them were timed in this run and how many in earlier ones.
    ratio
        Median of measured over predicted time; the predictions of what was not timed are
        scaled by it, or by that of the nearest region of the same site.
    failed
        Why nothing more could be timed; empty when all went well.
    """

    regions: int
    measured: int
    cached: int
    ratio: float
    failed: str = ""


@dataclass(frozen=True)
class RefitRound:
    """Factors that were fitted together.

    Parameters
    ----------
    weights
        Names of the last factors' weights.
    kept
        The way of fitting that was kept: ``last factor``, ``both factors`` or ``through the
        activation``; empty where none lowered the error.
    before, after
        Error on the probe part without and with it.
    """

    weights: tuple[str, ...]
    kept: str
    before: float
    after: float


@dataclass(frozen=True)
class RefitReport:
    """Factors fitted to their own inputs after the plan was made.

    Parameters
    ----------
    factors, kept
        How many could be fitted anew, and how many were, as the probe part liked it.
    before, after
        Error on the probe part without and with what was kept.
    rounds
        What was tried, in order.
    """

    factors: int
    kept: int
    before: float
    after: float
    rounds: tuple[RefitRound, ...] = ()


@dataclass(frozen=True)
class RecoveryReport:
    """Weights of the plan fine-tuned to the original's outputs.

    Parameters
    ----------
    weights
        How many could be tuned.
    steps
        Steps taken.
    stopped
        Why no further ones were, or why none was.
    before, after
        Error on the probe part at the start, and of the best weights seen; None where none were.
    final_before, final_after
        Error on the final part without and with them; None where the probe part saw no gain.
    kept
        Whether they were.
    """

    weights: int
    steps: int = 0
    stopped: str = ""
    before: float | None = None
    after: float | None = None
    final_before: float | None = None
    final_after: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class PlanReport:
    """The lossy part of a run.

    Parameters
    ----------
    budget
        Largest relative L2 error allowed per output; None when no limit on it was set.
    objective
        What was minimized.
    sites
        Every site seen.
    predicted
        Error expected of the plan kept: what the probe part, which is not the final one, showed
        of it, times `rescaled`; None when nothing was applied.
    spread
        Standard error of that, by how samples of the probe part differ; None with a single one.
    probe_error, final_error
        Error of the plan measured on the probe part and on the final part; None likewise.
    rounds
        Plans measured on the probe part until one was kept.
    undone
        What was taken back after each look at the final part, as ``site: label -> safer one``.
    final_evaluations
        How often the final part was looked at: once per plan kept and once per undo.
    nearest_miss
        When nothing was applied: the option that came nearest and its error, else None.
    summed
        What errors of single sites, added in quadrature, made of the plan before it was measured.
    rescaled
        After an undo: the square root of how much larger the error of the plan undone was on the
        final part than on the probe part; else 1.
    probed_on
        Samples of the probe part that single sites were probed on.
    unmet
        When nothing was applied: the limit that was in the way, where there is one to name.
    metric, keep
        The budgets of these kinds; None when there are none.
    costs
        What the seconds of the options rest on; None where they are predicted.
    refit
        What the refit brought; None where there was nothing to fit, or it was not wanted.
    curve
        What other budgets would have come to; None where nothing was searched.
    recovery
        What fine-tuning brought; None where it was not asked for, or nothing was applied.
    """

    budget: float | None
    objective: str
    sites: tuple[SiteReport, ...]
    predicted: float | None = None
    spread: float | None = None
    probe_error: float | None = None
    final_error: float | None = None
    rounds: int = 0
    undone: tuple[str, ...] = ()
    final_evaluations: int = 0
    nearest_miss: tuple[str, float] | None = None
    summed: float | None = None
    rescaled: float = 1.0
    probed_on: int = 0
    unmet: str = ""
    metric: MetricReport | None = None
    keep: KeepReport | None = None
    costs: CostReport | None = None
    refit: RefitReport | None = None
    curve: Curve | None = None
    recovery: RecoveryReport | None = None
