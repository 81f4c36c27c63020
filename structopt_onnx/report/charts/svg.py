"""Charts as SVG that takes its colours from the page around it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from structopt_onnx.report.charts.scale import Scale, scales
from structopt_onnx.report.figures import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.charts.chart import Chart, Mark, Series

# In the units of the view box: about a pixel on a phone.
_SIZE, _COMPACT = (360, 220), (270, 190)
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 10, 36
_RADIUS = 3.5


def svg(chart: Chart, *, compact: bool = False) -> str:
    """Draw a chart.

    Parameters
    ----------
    chart
        What to draw.
    compact
        Whether it will be shown small, so that its text must be larger beside it.

    Returns
    -------
    str
        One ``svg`` element whose parts have their roles as classes, for the style sheet; empty
        when there is nothing to draw. Everything in it is escaped.
    """
    found = scales(chart)
    if found is None:
        return ""
    width, height = _COMPACT if compact else _SIZE
    drawing = _Drawing(chart, *found, width, height)
    body = "".join(drawing.parts())
    label = escape(shown(f"{chart.title}. {chart.says}"))
    size = f'viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="{label}">{body}</svg>'


class _Drawing:
    """One chart being drawn."""

    def __init__(self, chart: Chart, x: Scale, y: Scale, width: int, height: int) -> None:
        self._chart = chart
        self._x, self._y = x, y
        self._right, self._bottom, self._end = width - _RIGHT, height - _BOTTOM, height

    def parts(self) -> Iterator[str]:
        """Yield the elements, from the back to the front."""
        yield from self._axes()
        for mark in self._chart.marks:
            yield from self._mark(mark)
        for series in self._chart.series:
            yield from self._series(series)

    def _axes(self) -> Iterator[str]:
        bottom, right = self._bottom, self._right
        for place, text in self._y.ticks():
            y = self._down(place)
            yield f'<path class="grid" d="M{_LEFT} {y}H{right}"/>'
            yield f'<text x="{_LEFT - 5}" y="{y}" dy=".35em" class="end">{escape(text)}</text>'
        for place, text in self._x.ticks():
            x = self._across(place)
            yield f'<path class="grid" d="M{x} {_TOP}V{bottom}"/>'
            yield f'<text x="{x}" y="{bottom + 14}" class="middle">{escape(text)}</text>'
        yield f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
        middle = self._across(0.5)
        label = escape(shown(self._chart.x.label))
        yield f'<text x="{middle}" y="{self._end - 5}" class="middle label">{label}</text>'
        turned = f'transform="translate(10 {self._down(0.5)}) rotate(-90)"'
        yield f'<text {turned} class="middle label">{escape(shown(self._chart.y.label))}</text>'

    def _mark(self, mark: Mark) -> Iterator[str]:
        scale = self._x if mark.axis == "x" else self._y
        at = scale.place(mark.at)
        low = None if mark.low is None else scale.place(mark.low)
        high = None if mark.high is None else scale.place(mark.high)
        bottom, right = self._bottom, self._right
        title = f"<title>{escape(shown(mark.name))}</title>"
        if low is not None and high is not None:
            if mark.axis == "x":
                left, width = self._across(low), self._across(high) - self._across(low)
                box = f'x="{left}" y="{_TOP}" width="{width:.4g}" height="{bottom - _TOP}"'
            else:
                top, height = self._down(high), self._down(low) - self._down(high)
                box = f'x="{_LEFT}" y="{top}" width="{right - _LEFT}" height="{height:.4g}"'
            yield f'<rect class="band {mark.role}" {box}>{title}</rect>'
        if at is not None:
            line = f"M{self._across(at)} {_TOP}V{bottom}"
            if mark.axis == "y":
                line = f"M{_LEFT} {self._down(at)}H{right}"
            yield f'<path class="mark {mark.role}" d="{line}">{title}</path>'

    def _series(self, series: Series) -> Iterator[str]:
        placed = [
            (self._across(x), self._down(y), number)
            for number, point in enumerate(series.points)
            if (x := self._x.place(point[0])) is not None
            and (y := self._y.place(point[1])) is not None
        ]
        if series.kind == "dots":
            yield f'<g class="dot {series.role}">'
            for x, y, number in placed:
                shape = f'<circle cx="{x}" cy="{y}" r="{_RADIUS}"'
                words = escape(shown(series.titles[number])) if series.titles else ""
                yield f"{shape}><title>{words}</title></circle>" if words else f"{shape}/>"
            yield "</g>"
        elif placed:
            path = f"M{placed[0][0]} {placed[0][1]}"
            for x, y, _ in placed[1:]:
                path += f"H{x}V{y}" if series.kind == "steps" else f"L{x} {y}"
            name = escape(shown(series.name))
            yield f'<path class="line {series.role}" d="{path}"><title>{name}</title></path>'

    def _across(self, place: float) -> float:
        return round(_LEFT + place * (self._right - _LEFT), 1)

    def _down(self, place: float) -> float:
        return round(self._bottom - place * (self._bottom - _TOP), 1)
