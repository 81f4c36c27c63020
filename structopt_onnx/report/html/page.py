"""A report put into the template of the page."""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.changes import applied_grid, refused_grid, size_grid
from structopt_onnx.report.charts.bars import operator_bars
from structopt_onnx.report.charts.chart import Chart
from structopt_onnx.report.charts.of_plan import curve_chart
from structopt_onnx.report.charts.of_run import site_charts
from structopt_onnx.report.charts.of_times import latency_chart, ratio_chart
from structopt_onnx.report.charts.svg import svg
from structopt_onnx.report.checks import comparison_notes, output_grid
from structopt_onnx.report.extra import require
from structopt_onnx.report.figures import count, mebibytes, shown
from structopt_onnx.report.grid import Grid
from structopt_onnx.report.html.tiles import status, tiles
from structopt_onnx.report.inputs import inputs_line
from structopt_onnx.report.lossy import (
    estimate_parts,
    offer_grid,
    offers_title,
    plan_lines,
    plan_title,
    site_grid,
)
from structopt_onnx.report.provider_grid import provider_grid
from structopt_onnx.report.verdict import is_explanation, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.report.plan_record import PlanReport
    from structopt_onnx.report.provider_grid import ProviderRow
    from structopt_onnx.report.record import Report

MOST_ROWS = 500
"""Rows of a table; more are in the JSON alone."""

# Rows in sight; the others are folded.
_MOST_SITES = 16


def render_html(report: Report, providers: Sequence[ProviderRow] = ()) -> str:
    """Write a report as one HTML page.

    Parameters
    ----------
    report
        The record of a run.
    providers
        What is known of the models on execution providers.

    Returns
    -------
    str
        A whole document that loads nothing and runs no script. Whatever comes from the model is
        escaped.

    Raises
    ------
    UsageError
        When jinja2 is not installed.
    """
    require("jinja2", "HTML reports")
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra
    from markupsafe import Markup  # noqa: PLC0415 - likewise

    def finalize(value: Any) -> Any:  # noqa: ANN401 - whatever the template prints
        plain = isinstance(value, str) and not isinstance(value, Markup)
        return shown(value).replace(" -> ", " \u2192 ") if plain else value

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    environment.filters["svg"] = lambda chart, small: Markup(svg(chart, compact=small))  # noqa: S704 - svg escapes
    environment.globals.update(most_rows=MOST_ROWS, most_sites=_MOST_SITES)
    folder = files("structopt_onnx.report.html")
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    style = (folder / "page.css").read_text(encoding="utf-8")
    return template.render(style=Markup(style), **_content(report, providers))  # noqa: S704 - ours


def _content(report: Report, providers: Sequence[ProviderRow]) -> dict[str, Any]:
    """Return what the template names."""
    comparison, plan, validation = report.comparison, report.plan, report.validation
    sites = list(site_charts(report))
    lossy = is_lossy(report)
    kept = lossy or plan is None or plan.final_error is None
    bars = operator_bars(report)
    times = [] if comparison is None else [latency_chart(comparison), ratio_chart(comparison)]
    return {
        "report": report,
        "explanation": is_explanation(report),
        "status": status(report),
        "verdict": verdict(report),
        "caveats": report.caveats,
        "tiles": list(tiles(report)),
        "sizes": size_grid(report),
        "providers": provider_grid(providers, report),
        "plan": None if plan is None else _plan(report, plan, kept=kept),
        "changed": [entry for entry in sites if entry[0].chosen is not None],
        "kept": [entry for entry in sites if entry[0].chosen is None],
        "curve": curve_chart(report, kept=lossy),
        "times": [chart for chart in times if isinstance(chart, Chart)],
        "time_notes": [] if comparison is None else comparison_notes(comparison),
        "operators": bars,
        "applied": applied_grid(report.applied),
        "patches": _patch_grid(report),
        "refused": refused_grid(report.refused),
        "outputs": Grid((), ()) if validation is None else output_grid(validation),
        "estimate": estimate_parts(report) if report.estimate else None,
        "inputs": inputs_line(report.samples, "--calibration"),
        "options": [*_options(report)],
        "machine": [*_machine(report)],
        "seconds": sorted(report.seconds.items(), key=lambda item: -item[1]),
    }


def _plan(report: Report, plan: PlanReport, *, kept: bool) -> tuple[str, list[str], Grid]:
    """Return a title, lines and a row per site."""
    if is_explanation(report):
        return offers_title(plan), [], offer_grid(plan)
    return plan_title(plan, kept=kept), list(plan_lines(plan)), site_grid(plan)


def _patch_grid(report: Report) -> Grid:
    """Put every rewrite in a row, so that a tensor can be traced back."""
    rows = tuple(
        (
            str(applied.number),
            applied.step,
            applied.node or "-",
            applied.title,
            applied.option or "-",
            ", ".join(applied.replaced) or "-",
        )
        for applied in report.applied
    )
    return Grid(("number", "pass", "node", "what", "option", "values replaced"), rows, (0,))


def _options(report: Report) -> Iterator[tuple[str, str]]:
    for option, value in report.options.items():
        if value not in (None, (), []):
            yield option, str(value)


def _machine(report: Report) -> Iterator[tuple[str, str]]:
    yield "structopt-onnx", report.version
    for field in fields(report.machine):
        value = getattr(report.machine, field.name)
        if field.name == "memory_bytes":
            yield "memory, MiB", mebibytes(value)
        else:
            yield field.name, str(value)
