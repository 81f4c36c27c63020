"""A `Report` as text: one layout for terminals, pipes and `print`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.changes import applied_grid, refused_grid, size_grid
from structopt_onnx.report.checks import (
    comparison_notes,
    validation_summary,
    validation_table,
)
from structopt_onnx.report.inputs import inputs_line
from structopt_onnx.report.layout import WIDTH, bullets, line, section, table_of, to_text
from structopt_onnx.report.lossy import estimate_section, offers_section, plan_section
from structopt_onnx.report.verdict import is_explanation, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from structopt_onnx.report.record import Report

_MOST_CODES = 12


def render_text(report: Report, width: int = WIDTH) -> str:
    """Write a report as plain text: verdict first, details below, no colours.

    Parameters
    ----------
    report
        The record of a run.
    width
        Characters per line.

    Returns
    -------
    str
        Lines without spaces at their ends, with a newline at the end.
    """
    return to_text(render(report), width)


def render(report: Report) -> RenderableType:
    """Lay a report out for a rich console; `render_text` prints the same without colours."""
    return Group(
        *_verdict(report),
        section("Before and after", table_of(size_grid(report))),
        *_rewrites(report),
        *_checks(report),
        section("Run", *(line(text) for text in _run(report))),
    )


def _verdict(report: Report) -> Iterator[RenderableType]:
    first, *others = verdict(report)
    yield line(first, "bold")
    for text in others:
        yield line(text)
    for text in report.caveats:
        yield line(f"note: {text}", "yellow")


def _rewrites(report: Report) -> Iterator[RenderableType]:
    explanation = is_explanation(report)
    if report.applied:
        title = "Would apply" if explanation else "Applied"
        yield section(title, table_of(applied_grid(report.applied)))
    if report.plan is not None and explanation:
        yield offers_section(report.plan)
    elif report.plan is not None:
        kept = is_lossy(report) or report.plan.final_error is None
        yield plan_section(report.plan, kept=kept)
    if report.refused:
        yield section("Left alone", _refused(report))


def _checks(report: Report) -> Iterator[RenderableType]:
    validation = report.validation
    if validation is not None:
        title = f"Validation: {validation_summary(validation)}"
        yield section(title, validation_table(validation))
    if report.rolled_back:
        yield section("Rolled back", bullets(report.rolled_back))
    if report.estimate:
        yield estimate_section(report)
    if report.notes:
        yield section("Notes", bullets(report.notes))


def _refused(report: Report) -> RenderableType:
    grid = refused_grid(report.refused)
    some = grid.first(_MOST_CODES)
    parts: list[RenderableType] = [table_of(some)]
    if len(grid.rows) > len(some.rows):
        parts.append(line(f"and {len(grid.rows) - len(some.rows)} more reasons (--json lists all)"))
    return Group(*parts)


def _run(report: Report) -> Iterator[str]:
    yield inputs_line(report.samples, "--calibration")
    yield f"pipeline: {report.pipeline.replace(',', ', ')}"
    if report.comparison is not None:
        yield from comparison_notes(report.comparison)
    if report.seconds:
        slowest = sorted(report.seconds.items(), key=lambda item: -item[1])[:4]
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in slowest)
        yield f"took {sum(report.seconds.values()):.1f} s: {stages}"
