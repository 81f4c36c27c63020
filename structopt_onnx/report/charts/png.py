"""Charts as PNG files, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.charts.scale import scales
from structopt_onnx.report.extra import require
from structopt_onnx.report.figures import name, shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

    from structopt_onnx.report.charts.bars import Bars
    from structopt_onnx.report.charts.chart import Chart
    from structopt_onnx.report.charts.scale import Scale

COLOURS = {
    "before": "#8a6d3b",
    "after": "#1769aa",
    "chosen": "#c2185b",
    "limit": "#c62828",
    "plain": "#78909c",
}
_DOTS_PER_INCH = 144
_INCHES = (6.4, 4.0)
_MOST_BARS = 24


def write_png(charts: Iterable[Chart | Bars], folder: Path) -> list[Path]:
    """Draw each chart into a file named after it.

    Parameters
    ----------
    charts
        What to draw; those with nothing in them are left out.
    folder
        Exists.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    UsageError
        When matplotlib is not installed.
    """
    require("matplotlib", "plots")
    # Without pyplot no window system is looked for, and nothing is kept between charts.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    from structopt_onnx.report.charts.bars import Bars  # noqa: PLC0415 - for its type alone

    written = []
    for chart in charts:
        figure = Figure(figsize=_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        if isinstance(chart, Bars):
            _bars(axes, chart)
        elif not _chart(axes, chart):
            continue
        of = "" if isinstance(chart, Bars) or not chart.of else f": {name(chart.of)}"
        axes.set_title(_plain(f"{chart.title}{of}"), fontsize=11)
        handles, labels = axes.get_legend_handles_labels()
        legend = dict(zip(labels, handles, strict=True))  # a line and its dots have one name
        axes.legend(legend.values(), legend.keys(), fontsize=8, frameon=False)
        path = folder / f"{chart.name}.png"
        # Without a date and the version, the same record gives the same bytes.
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
        written.append(path)
    return written


def _chart(axes: Axes, chart: Chart) -> bool:
    found = scales(chart)
    if found is None:
        return False
    for mark in chart.marks:
        line, span = (
            (axes.axvline, axes.axvspan) if mark.axis == "x" else (axes.axhline, axes.axhspan)
        )
        colour = COLOURS[mark.role]
        if mark.low is not None and mark.high is not None:
            span(mark.low, mark.high, color=colour, alpha=0.15, linewidth=0)
        line(mark.at, color=colour, linestyle="--", linewidth=1.2, label=_plain(mark.name))
    for series in chart.series:
        xs, ys = [p[0] for p in series.points], [p[1] for p in series.points]
        if found[1].axis.log:  # 0 lies at the lower end
            ys = [10 ** found[1].low if y == 0 else y for y in ys]
        colour, label = COLOURS[series.role], _plain(series.name)
        if series.kind == "dots":
            axes.scatter(xs, ys, s=22, zorder=3, color=colour, label=label)
        else:
            step = "steps-post" if series.kind == "steps" else "default"
            axes.plot(xs, ys, drawstyle=step, linewidth=1.6, color=colour, label=label)
    _axes(axes, chart, *found)
    return True


def _axes(axes: Axes, chart: Chart, x: Scale, y: Scale) -> None:
    for scale, axis, limits, log in (
        (x, axes.xaxis, axes.set_xlim, axes.set_xscale),
        (y, axes.yaxis, axes.set_ylim, axes.set_yscale),
    ):
        if scale.axis.log:
            log("log")
            limits(10**scale.low, 10**scale.high)
        else:
            limits(scale.low, scale.high)
        if scale.axis.percent:
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.set_xlabel(_plain(chart.x.label), fontsize=9)
    axes.set_ylabel(_plain(chart.y.label), fontsize=9)
    axes.grid(alpha=0.25)


def _bars(axes: Axes, bars: Bars) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - an extra

    rows = bars.rows[:_MOST_BARS][::-1]
    places = range(len(rows))
    for offset, role, values in (
        (0.2, "before", [row.before for row in rows]),
        (-0.2, "after", [row.after for row in rows]),
    ):
        axes.barh([p + offset for p in places], values, 0.38, color=COLOURS[role], label=role)
    axes.set_yticks([*places], [_plain(row.name) for row in rows], fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", alpha=0.25)


def _plain(text: str) -> str:
    """Keep matplotlib from reading a text of the model's as mathematics."""
    return shown(text).replace("$", r"\$")
