"""What paired times prove: an interval over replicates, and the verdict with its control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict: TypeAlias = Literal["faster", "slower", "no difference shown", "not measured"]

CONFIDENCE = 0.95
SMALLEST_EFFECT = 0.01
"""Differences up to this are never claimed: a fresh process alone can move a time that far."""


@dataclass(frozen=True)
class RatioInterval:
    """A ratio of times with its confidence interval.

    Attributes
    ----------
    ratio
        Geometric mean over the replicates.
    low, high
        Ends of the 95 % t-interval.
    """

    ratio: float
    low: float
    high: float


def median_log_ratio(times_a: Sequence[float], times_b: Sequence[float]) -> float:
    """Median over the pairs of log(tB / tA): the statistic of one replicate.

    Parameters
    ----------
    times_a, times_b
        Times of the pairs, in any one unit, all positive.
    """
    return float(np.median(np.log(np.asarray(times_b) / np.asarray(times_a))))


def ratio_interval(log_ratios: Sequence[float]) -> RatioInterval:
    """Student's t-interval over replicates, on the log scale.

    The pairs of one replicate share the memory placement of their sessions, a fixed bias: only
    replicates, which create the sessions anew, are independent.

    Parameters
    ----------
    log_ratios
        One statistic per replicate, at least two.
    """
    values = np.asarray(log_ratios, dtype=np.float64)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    half = float(stdtrit(values.size - 1, 0.5 + CONFIDENCE / 2)) * error
    return RatioInterval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def control_spread(control_log_ratios: Sequence[float]) -> float:
    """How far a model is from itself: absolute median log ratio of the A/A control."""
    return abs(float(np.median(np.asarray(control_log_ratios))))


def decide(interval: RatioInterval, spread: float) -> tuple[Verdict, str]:
    """Say what an interval and the control prove.

    Parameters
    ----------
    interval
        Of tB / tA.
    spread
        Of the A/A control, see `control_spread`.

    Returns
    -------
    verdict, reason
        "faster" or "slower" only if the interval excludes 1 and the effect exceeds both 1 % and
        twice the spread of the control.
    """
    change = f"{100 * (interval.ratio - 1):+.1f} % time"
    if interval.low <= 1 <= interval.high:
        return "no difference shown", f"{change}, but the interval includes x1"
    threshold = max(math.log1p(SMALLEST_EFFECT), 2 * spread)
    if abs(math.log(interval.ratio)) <= threshold:
        least = f"{100 * math.expm1(threshold):.1f} %"
        return "no difference shown", f"{change}, below the {least} that could be told apart"
    return ("faster" if interval.ratio < 1 else "slower"), change
