"""What a run changed, and what it left alone, in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.checks import timing_rows
from structopt_onnx.report.figures import change, count, name, shown
from structopt_onnx.report.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structopt_onnx.report.record import Report
    from structopt_onnx.rewriting.record import Applied, Refused


def size_grid(report: Report) -> Grid:
    """Put sizes, costs and times before and after side by side."""
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
    return Grid(("", "before", "after", "change"), tuple(rows), (1, 2, 3))


def applied_grid(applied: Iterable[Applied]) -> Grid:
    """Sum up what was applied, a row per pass."""
    groups: dict[str, list[Applied]] = {}
    for one in applied:
        groups.setdefault(one.step, []).append(one)
    rows = tuple(
        (
            step,
            count(len(group)),
            _delta(sum(a.after.parameters - a.before.parameters for a in group)),
            _delta(sum(a.after.macs - a.before.macs for a in group)),
            _delta(sum(a.after.nodes - a.before.nodes for a in group)),
            group[0].title if len(group) == 1 else f"{group[0].title}, ...",
        )
        for step, group in groups.items()
    )
    return Grid(("pass", "times", "parameters", "MACs", "nodes", "what"), rows, (1, 2, 3, 4))


def refused_grid(refused: Iterable[Refused]) -> Grid:
    """Count what was left alone by reason, the most frequent first."""
    groups: dict[str, list[Refused]] = {}
    for one in refused:
        groups.setdefault(one.refusal.code, []).append(one)
    rows = tuple(
        (
            code,
            count(len(group)),
            ", ".join(dict.fromkeys(refused.step for refused in group)),
            _example(group[0]),
        )
        for code, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    )
    return Grid(("why", "sites", "pass", "such as"), rows, (1,))


def _example(refused: Refused) -> str:
    refusal = refused.refusal
    return f"{name(refusal.node, 32)}: {shown(refusal.detail)}" if refusal.node else refusal.detail


def _delta(number: int) -> str:
    return f"{number:+,}" if number else "0"
