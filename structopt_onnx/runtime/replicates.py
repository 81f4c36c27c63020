"""The times that a comparison rests on, replicate by replicate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.runtime.statistics import median_log_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

# The clocks resolve no more.
_DIGITS = 4


@dataclass(frozen=True)
class Replicate:
    """Times of one replicate, whose sessions were made for it.

    Attributes
    ----------
    a, b
        Milliseconds per run, pair by pair, to four digits; `b` is empty with one model.
    ratio
        Median of tB / tA over the pairs; None with one model.
    control_ratio
        The same of model A against itself; None in a replicate without a control.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    ratio: float | None
    control_ratio: float | None


def replicate_of(arms: Sequence[Sequence[float]], models: int) -> Replicate:
    """Sum up the times of one replicate.

    Parameters
    ----------
    arms
        Milliseconds per run: of the models, then of the control.
    models
        One or two.
    """
    paired, controlled = models > 1, len(arms) > models
    return Replicate(
        a=_rounded(arms[0]),
        b=_rounded(arms[1]) if paired else (),
        ratio=math.exp(median_log_ratio(arms[0], arms[1])) if paired else None,
        control_ratio=math.exp(median_log_ratio(arms[0], arms[-1])) if controlled else None,
    )


def _rounded(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{ms:.{_DIGITS}g}") for ms in times)
