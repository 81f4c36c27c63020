"""A `Report` as Markdown: short enough for a comment on a change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.changes import applied_grid, refused_grid, size_grid
from structopt_onnx.report.checks import comparison_notes, output_grid, validation_summary
from structopt_onnx.report.figures import shown
from structopt_onnx.report.inputs import inputs_line
from structopt_onnx.report.lossy import (
    offer_grid,
    offers_title,
    plan_lines,
    plan_title,
    site_grid,
)
from structopt_onnx.report.provider_grid import provider_grid
from structopt_onnx.report.verdict import is_explanation, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from structopt_onnx.report.grid import Grid
    from structopt_onnx.report.provider_grid import ProviderRow
    from structopt_onnx.report.record import Report

_MOST_ROWS = 20
# What Markdown could read as markup, HTML or a mention.
_SPECIAL = re.compile(r"([\\`*_\[\]<|#~&])")


def render_markdown(report: Report, providers: Sequence[ProviderRow] = ()) -> str:
    """Write a report as Markdown with tables, verdict first.

    Parameters
    ----------
    report
        The record of a run.
    providers
        What is known of the models on execution providers.

    Returns
    -------
    str
        Text from the model is escaped. Long tables are cut after 20 rows.
    """
    return "\n".join(_lines(report, providers)) + "\n"


def _lines(report: Report, providers: Sequence[ProviderRow]) -> Iterator[str]:
    first, *others = verdict(report)
    yield f"**{_escaped(first)}**"
    yield ""
    yield from _bullets(others)
    yield from _bullets(f"note: {text}" for text in report.caveats)
    yield from _section("Before and after", size_grid(report))
    yield from _section("By provider", provider_grid(providers, report))
    explanation, plan = is_explanation(report), report.plan
    title = "Would apply" if explanation else "Applied"
    yield from _section(title, applied_grid(report.applied))
    if plan is not None and explanation:
        yield from _section(offers_title(plan), offer_grid(plan))
    elif plan is not None:
        kept = is_lossy(report) or plan.final_error is None
        yield from _section(plan_title(plan, kept=kept), site_grid(plan), plan_lines(plan))
    yield from _section("Left alone", refused_grid(report.refused))
    validation = report.validation
    if validation is not None:
        title = f"Validation: {validation_summary(validation)}"
        yield from _section(title, output_grid(validation), validation.failures)
    for title, lines in (("Rolled back", report.rolled_back), ("Notes", report.notes)):
        if lines:
            yield from ("", f"### {title}", "", *_bullets(lines))
    notes = () if report.comparison is None else comparison_notes(report.comparison)
    machine = report.machine
    where = f"structopt-onnx {report.version}, {machine.os}, Python {machine.python}"
    yield from ("", "### Run", "")
    yield from _bullets([inputs_line(report.samples, "--calibration"), *notes, where])
    if report.recipe:
        # Every line of it begins with a key or a #: nothing in it ends the fence.
        yield from ("", "### Recipe", "", "```toml", *report.recipe.splitlines(), "```")


def _section(title: str, grid: Grid, lines: Iterable[str] = ()) -> Iterator[str]:
    below = list(lines)
    if not grid.rows and not below:
        return
    yield from ("", f"### {_escaped(title)}", "")
    if grid.rows:
        yield _row(grid.headers)
        yield _row(
            ("---:" if n in grid.numbers else "---" for n in range(len(grid.headers))), plain=True
        )
        yield from (_row(row) for row in grid.rows[:_MOST_ROWS])
        if len(grid.rows) > _MOST_ROWS:
            yield from ("", f"and {len(grid.rows) - _MOST_ROWS} more")
    if below:
        yield from ("", *_bullets(below))


def _row(cells: Iterable[str], *, plain: bool = False) -> str:
    return f"| {' | '.join(cell if plain else _escaped(cell) for cell in cells)} |"


def _bullets(lines: Iterable[str]) -> Iterator[str]:
    yield from (f"- {_escaped(text)}" for text in lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", shown(text)).replace("@", "&#64;")
