"""Axes: from numbers to places, and the ticks on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.report.charts.chart import Axis, Chart

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 5
# Empty space at the ends, as a share of the axis.
_MARGIN = 0.04
_FEW_DECADES = 1.5
_ROUNDING = 1e-9
# Of a tick's text: as few as tell it from the others.
_FEWEST_DIGITS, _MOST_DIGITS = 3, 6
# Numbers from here on are grouped in threes; parts of one beyond it have an exponent.
_LONG = 1000


@dataclass(frozen=True)
class Scale:
    """Where numbers lie on an axis.

    Parameters
    ----------
    low, high
        Numbers at its ends; logarithms of them on a logarithmic one.
    axis
        What it measures.
    """

    low: float
    high: float
    axis: Axis

    def place(self, value: float) -> float | None:
        """Return a place from 0 to 1; None where the axis does not reach.

        On a logarithmic axis 0, as of an option without any error, lies at the lower end.
        """
        if self.axis.log and value <= 0:
            return 0.0 if value == 0 else None
        place = ((math.log10(value) if self.axis.log else value) - self.low) / self._length
        return place if -_ROUNDING <= place <= 1 + _ROUNDING else None

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and texts, at most about five."""
        if not self.axis.log:
            return self._placed(_even(self.low, self.high))
        found = self._placed(self._decades())
        # Between two round numbers there may be none.
        return found if len(found) > 1 else self._placed(_even(10**self.low, 10**self.high))

    def _placed(self, values: Iterable[float]) -> list[tuple[float, str]]:
        placed = [(p, value) for value in values if (p := self.place(value)) is not None]
        for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
            texts = [self._text(value, digits) for _, value in placed]
            if len({*texts}) == len(texts):
                break
        return [(place, text) for (place, _), text in zip(placed, texts, strict=True)]

    @property
    def _length(self) -> float:
        return self.high - self.low

    def _decades(self) -> Iterator[float]:
        first, last = math.floor(self.low), math.ceil(self.high)
        digits = (1.0, 2.0, 5.0) if self._length < _FEW_DECADES else (1.0,)
        every = max(1, math.ceil(self._length / _MOST_TICKS))
        for power in range(first, last + 1):
            if power % every == 0 or len(digits) > 1:
                yield from (digit * 10.0**power for digit in digits)

    def _text(self, value: float, digits: int) -> str:
        if self.axis.percent:
            return f"{100 * value:.{digits}g}%"
        if abs(value) >= _LONG:
            return f"{value:,.0f}"
        if self.axis.log and value < 1 / _LONG:
            mantissa, _, exponent = f"{value:.2e}".partition("e")
            return f"{float(mantissa):g}e{int(exponent)}"
        return f"{value:.{digits}g}"


def scales(chart: Chart) -> tuple[Scale, Scale] | None:
    """Return the scales of x and y that hold all of a chart; None when there is nothing in it."""
    points = [point for series in chart.series for point in series.points]
    found = []
    for axis, index, letter in ((chart.x, 0, "x"), (chart.y, 1, "y")):
        values = [point[index] for point in points]
        for mark in chart.marks:
            if mark.axis == letter:
                values += [v for v in (mark.at, mark.low, mark.high) if v is not None]
        scale = _scale(axis, values)
        if scale is None:
            return None
        found.append(scale)
    return found[0], found[1]


def _even(low: float, high: float) -> list[float]:
    length = high - low
    power = 10.0 ** math.floor(math.log10(length / _MOST_TICKS))
    steps = (factor * power for factor in _STEPS)
    step = next((s for s in steps if length / s <= _MOST_TICKS), 10 * power)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _scale(axis: Axis, values: Iterable[float]) -> Scale | None:
    known = [value for value in values if math.isfinite(value)]
    if axis.log:
        known = [math.log10(value) for value in known if value > 0]
    if not known:
        return None
    low, high = min(known), max(known)
    length = high - low or abs(high) * 0.1 or 1.0
    from_zero = not axis.log and low >= 0 and low < length
    low, high = (0.0 if from_zero else low - _MARGIN * length), high + _MARGIN * length
    return Scale(low, high, axis)
