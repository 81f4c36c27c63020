"""The first lines of a report: what came of it, how far off it is, how fast, what to doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.budgets import budget_lines
from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.checks import speed_summary
from structopt_onnx.report.figures import change, count, error, plural
from structopt_onnx.report.lossy import sites_on_offer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.record import Report, Size
    from structopt_onnx.runtime.coverage import Coverage


def verdict(report: Report) -> tuple[str, ...]:
    """Say in a few lines what a run came to.

    The first line names the files and sizes; the next ones the error against what was allowed
    and the speed, each only where it was measured.
    """
    return tuple(_lines(report))


def is_explanation(report: Report) -> bool:
    """Whether nothing was carried out: `optimize` always validates, `explain` never does."""
    return report.validation is None


def _lines(report: Report) -> Iterator[str]:
    before, after = report.before, report.after
    target = "" if report.output is None else f" -> {report.output}"
    sizes = f"{count(before.file_bytes)} -> {count(after.file_bytes)} bytes"
    changed = change(before.file_bytes, after.file_bytes)
    shares = "" if changed == "same" else f" ({changed})"
    yield f"{report.source}{target}: {sizes}{shares}{_counts(before, after)}"
    yield from _coverage(report)
    if is_explanation(report):
        yield _explanation(report)
        return
    if not report.applied and not report.rolled_back:
        yield f"nothing applied: {_unchanged(before.file_bytes, after.file_bytes)}"
    if report.rolled_back:
        yield _rolled_back(report)
    if report.plan is not None:
        yield from budget_lines(report.plan, report.samples, kept=is_lossy(report))
    yield from _validation(report)
    if report.comparison is not None:
        yield speed_summary(report.comparison, "--benchmark-seconds")
    elif report.applied:
        yield "speed not measured"


def _coverage(report: Report) -> Iterator[str]:
    before, after = report.coverage_before, report.coverage_after
    if before is None or after is None:
        return
    yield (
        f"predicted for {after.target}: {_taken(before)} -> {_taken(after)}, by the operators that "
        "onnxruntime lists for it"
    )


def _taken(coverage: Coverage) -> str:
    pieces = plural(coverage.partitions, "partition")
    return f"{count(coverage.supported)} of {plural(coverage.nodes, 'node')} in {pieces}"


def _unchanged(before: int, after: int) -> str:
    if before == after:
        return "the model is as it was"
    by = f"{count(abs(after - before))} {'fewer' if after < before else 'more'} bytes"
    return f"the model is as it was, written in {by}"


def _explanation(report: Report) -> str:
    exact = plural(len(report.applied), "exact rewrite") if report.applied else "no exact rewrite"
    sites = 0 if report.plan is None else sites_on_offer(report.plan)
    lossy = f"; {plural(sites, 'lossy site')} on offer, not probed" if sites else ""
    return f"nothing was written; {exact} would apply{lossy}"


def _rolled_back(report: Report) -> str:
    first, *others = report.rolled_back
    same = _unchanged(report.before.file_bytes, report.after.file_bytes)
    kept = "" if report.applied else f"nothing kept, {same}; "
    more = f" (and {len(others)} more, below)" if others else ""
    return f"{kept}rolled back: {first}{more}"


def _counts(before: Size, after: Size) -> str:
    was, now = before.cost, after.cost
    figures = [
        ("parameters", was.parameters, now.parameters),
        ("MACs", was.macs, now.macs),
    ]
    changed = [f"{what} {change(a, b)}" for what, a, b in figures if a != b]
    if was.nodes != now.nodes:
        changed.append(f"nodes {count(was.nodes)} -> {count(now.nodes)}")
    return f"; {', '.join(changed)}" if changed else ""


def _validation(report: Report) -> Iterator[str]:
    validation = report.validation
    if validation is None:
        return
    if not validation.passed:
        yield f"VALIDATION FAILED: {validation.failures[0]}"
    elif not is_lossy(report):
        exact, shipped = validation.exact, validation.shipped
        yield (
            f"validated: error {error(max(exact.error, shipped.error))} against the original on "
            f"{plural(shipped.samples, 'sample')}"
        )
