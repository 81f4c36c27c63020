"""Every chart of a run, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.charts.bars import operator_bars
from structopt_onnx.report.charts.of_plan import curve_chart, options_chart, spectrum_chart
from structopt_onnx.report.charts.of_times import latency_chart, ratio_chart
from structopt_onnx.report.lossy import ordered_sites

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.charts.bars import Bars
    from structopt_onnx.report.charts.chart import Chart
    from structopt_onnx.report.plan_record import SiteReport
    from structopt_onnx.report.record import Report

MOST_SITES = 24
"""Sites that are drawn; the others are in the table and in the JSON."""


def charts_of(report: Report) -> Iterator[Chart | Bars]:
    """Yield what can be drawn of a run."""
    found: list[Chart | None] = [curve_chart(report, kept=is_lossy(report))]
    for _, charts in site_charts(report):
        found += charts
    if report.comparison is not None:
        found += [latency_chart(report.comparison), ratio_chart(report.comparison)]
    yield from (chart for chart in found if chart is not None)
    bars = operator_bars(report)
    if bars.rows:
        yield bars


def site_charts(report: Report) -> Iterator[tuple[SiteReport, list[Chart]]]:
    """Yield the sites with something to draw, changed ones first, each with its charts."""
    number = 0
    for site in () if report.plan is None else ordered_sites(report.plan):
        name = f"site-{number + 1:02}"
        charts = [c for c in (spectrum_chart(site, name), options_chart(site, name)) if c]
        if charts and number < MOST_SITES:
            number += 1
            yield site, charts
