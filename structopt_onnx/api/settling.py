"""The final part: what was planned must hold on samples that had no say in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.judge import Judge, Measured
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.api.plans import Chosen
    from structopt_onnx.api.refit import Refits
    from structopt_onnx.api.trials import Trial, Trials

# Undoing goes a little further than asked, to look at the final part as rarely as possible.
_MARGIN = 0.9
# What a metric loses goes roughly with the error; but it is counted on few samples, so one look
# takes back no more than this share of the squared error.
_LEAST_SHARE = 0.02
_MOST_LOOKS = 8
_MOST_TOLD = 4


@dataclass
class Settled:
    """What became of a plan on the final part.

    Parameters
    ----------
    kept
        The plan that holds there; None when none does.
    measured
        What the final part showed of the last plan looked at.
    undone
        What was changed after each look, as ``site: option -> safer one``.
    taught
        How much larger the error is to be expected on the final part than on the probe part: the
        square root of the ratio of the last plan that was undone, since a plan is undone for bad
        luck on the final part as well as for good luck on the probe part; 1 where none was.
    """

    kept: Trial | None
    measured: Measured
    undone: list[str] = field(default_factory=list)
    taught: float = 1.0


class Settling:
    """Takes a plan back, a little at a time, until the final part is within the limits.

    Parameters
    ----------
    bench, trials, refits, final
        The run, what tries plans on the probe part, what refits them, and the final part's judge.
    """

    def __init__(self, bench: Bench, trials: Trials, refits: Refits, final: Judge) -> None:
        self._bench = bench
        self._trials = trials
        self._planning = trials.planning
        self._refits = refits
        self._final = final

    def settle(self, trial: Trial) -> Settled:
        """Look at the final part, once per plan."""
        options = self._bench.options
        now = self._refits.of(trial).trial
        settled = Settled(now, self._look(now))
        while not settled.measured.within(options):
            safer = None
            if options.keep is None and len(settled.undone) < _MOST_LOOKS:
                safer = self._safer(now.chosen, settled.measured)
            self._note(
                now.chosen, (None,) * len(now.chosen) if safer is None else safer.chosen, settled
            )
            settled.kept = None
            if safer is None:
                break
            settled.taught = _ratio(settled.measured, now.measured)
            settled.kept = now = self._refits.of(safer).trial
            settled.measured = self._look(now)
        return settled

    def _look(self, trial: Trial) -> Measured:
        return self._final.measure(self._refits.of(trial).refitted.model)

    def _safer(self, before: Chosen, measured: Measured) -> Trial | None:
        """Plan anew for less error, until the probe part is content with it."""
        options = self._bench.options
        share = _MARGIN * _within(measured, options) ** 2
        chosen: Chosen | None = before
        while chosen is not None:
            chosen = self._planning.safer(chosen, share)
            if chosen is None:
                break
            trial = self._trials.of(chosen)
            if trial.measured.within(options) and not trial.empty:
                return trial
        return None

    def _note(self, before: Chosen, after: Chosen, settled: Settled) -> None:
        drop = settled.measured.drop
        lost = "" if drop is None else f", drop {drop:.3g}"
        lines = self._planning.differences(before, after)
        more = f" and {len(lines) - _MOST_TOLD} more" if len(lines) > _MOST_TOLD else ""
        settled.undone.append(
            f"{', '.join(lines[:_MOST_TOLD])}{more} (error {settled.measured.error:.3g}{lost})"
        )
        for site, was, now in zip(self._planning.sites, before, after, strict=True):
            if was is not None and now is None:
                site.why = "undone: the final part was over the budget"


def _within(measured: Measured, options: OptimizeOptions) -> float:
    """Return the share of the error that the limits would allow, were they in proportion."""
    shares = [1.0]
    if options.max_error is not None and measured.error > 0:
        shares.append(options.max_error / measured.error)
    if options.max_drop is not None and measured.drop is not None and measured.drop > 0:
        shares.append(options.max_drop / measured.drop)
    return max(min(shares), math.sqrt(_LEAST_SHARE))


def _ratio(final: Measured, probe: Measured) -> float:
    ratio = final.error / max(probe.error, 1e-300)
    return math.sqrt(ratio) if 0 < ratio < math.inf else 1.0
