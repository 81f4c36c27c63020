"""A `Report` as text: one layout for terminals, pipes and `print`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.checks import (
    comparison_notes,
    timing_rows,
    validation_summary,
    validation_table,
)
from structopt_onnx.report.figures import change, count, name, shown
from structopt_onnx.report.inputs import inputs_line
from structopt_onnx.report.layout import WIDTH, bullets, line, section, table, to_text
from structopt_onnx.report.lossy import estimate_section, offers_section, plan_section
from structopt_onnx.report.verdict import is_explanation, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from structopt_onnx.report.record import Report
    from structopt_onnx.rewriting.record import Applied, Refused

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
        section("Before and after", _sizes(report)),
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
        yield section("Would apply" if explanation else "Applied", _applied(report))
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


def _sizes(report: Report) -> RenderableType:
    before, after = report.before, report.after
    was, now = before.cost, after.cost
    figures = (
        ("file, bytes", before.file_bytes, after.file_bytes),
        ("weights, bytes", was.bytes, now.bytes),
        ("parameters", was.parameters, now.parameters),
        ("MACs", was.macs, now.macs),
        ("nodes", was.nodes, now.nodes),
    )
    rows = [(what, count(a), count(b), change(a, b)) for what, a, b in figures]
    comparison = report.comparison
    if comparison is not None and comparison.b is not None:
        rows += [
            (what, first, second, change(a, b))
            for what, first, second, a, b in timing_rows(comparison.a, comparison.b)
        ]
    return table(("", "before", "after", "change"), rows, (1, 2, 3))


def _applied(report: Report) -> RenderableType:
    groups: dict[str, list[Applied]] = {}
    for applied in report.applied:
        groups.setdefault(applied.step, []).append(applied)
    rows = [
        (
            step,
            count(len(group)),
            _delta(sum(a.after.parameters - a.before.parameters for a in group)),
            _delta(sum(a.after.macs - a.before.macs for a in group)),
            _delta(sum(a.after.nodes - a.before.nodes for a in group)),
            group[0].title if len(group) == 1 else f"{group[0].title}, ...",
        )
        for step, group in groups.items()
    ]
    headers = ("pass", "times", "parameters", "MACs", "nodes", "what")
    return table(headers, rows, (1, 2, 3, 4))


def _refused(report: Report) -> RenderableType:
    groups: dict[str, list[Refused]] = {}
    for refused in report.refused:
        groups.setdefault(refused.refusal.code, []).append(refused)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [
        (
            code,
            count(len(group)),
            ", ".join(dict.fromkeys(refused.step for refused in group)),
            _example(group[0]),
        )
        for code, group in ordered[:_MOST_CODES]
    ]
    parts: list[RenderableType] = [table(("why", "sites", "pass", "such as"), rows, (1,))]
    if len(ordered) > len(rows):
        parts.append(line(f"and {len(ordered) - len(rows)} more reasons (--json lists all)"))
    return Group(*parts)


def _example(refused: Refused) -> str:
    refusal = refused.refusal
    return f"{name(refusal.node, 32)}: {shown(refusal.detail)}" if refusal.node else refusal.detail


def _delta(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _run(report: Report) -> Iterator[str]:
    yield inputs_line(report.samples, "--calibration")
    yield f"pipeline: {report.pipeline.replace(',', ', ')}"
    if report.comparison is not None:
        yield from comparison_notes(report.comparison)
    if report.seconds:
        slowest = sorted(report.seconds.items(), key=lambda item: -item[1])[:4]
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in slowest)
        yield f"took {sum(report.seconds.values()):.1f} s: {stages}"
