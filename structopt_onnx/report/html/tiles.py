"""The figures at the top of a page: one number each, and whether it is good news."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from structopt_onnx.report.caveats import is_lossy
from structopt_onnx.report.figures import change, count, error, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.record import Report
    from structopt_onnx.runtime.comparison import Comparison

# A change by less than this share is no news.
_NEWS = 0.001

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Tile:
    """One figure.

    Parameters
    ----------
    label, value, detail
        What it is, the figure, and what it is made of.
    tone
        Whether it is good news.
    """

    label: str
    value: str
    detail: str
    tone: Tone = "neutral"


def status(report: Report) -> Tile:
    """Say in a word or two what came of a run."""
    if report.validation is None:
        return Tile("status", "not carried out", "")
    if not report.validation.passed:
        return Tile("status", "validation FAILED", "", "bad")
    if not report.applied:
        return Tile("status", "nothing applied, validated", "")
    return Tile("status", "optimized, validated", "", "good")


def tiles(report: Report) -> Iterator[Tile]:
    """Yield size, products, error or metric, and time, each where it is known."""
    before, after = report.before, report.after
    yield _cost("file", before.file_bytes, after.file_bytes, "bytes")
    yield _cost("operations", before.cost.macs, after.cost.macs, "MACs")
    yield from _errors(report)
    if report.comparison is not None:
        yield _time(report.comparison)


def _cost(label: str, was: int, now: int, unit: str) -> Tile:
    tone: Tone = "good" if now < was else "bad"
    if abs(now - was) <= _NEWS * was:
        tone = "neutral"
    same = "unchanged" if was == now else change(was, now)
    return Tile(label, same, f"{count(was)} to {count(now)} {unit}", tone)


def _errors(report: Report) -> Iterator[Tile]:
    validation, plan = report.validation, report.plan
    if validation is None:
        yield Tile("outputs", "not run", "nothing was written")
        return
    found = error(max(validation.exact.error, validation.shipped.error))
    if not validation.passed:
        yield Tile("outputs", "FAILED", validation.failures[0], "bad")
        return
    metric = None if plan is None else plan.metric
    if is_lossy(report) and metric is not None and metric.drop is not None:
        detail = f"of {error(metric.max_drop)} allowed"
        yield Tile(f"{metric.name}, drop", f"{metric.drop:.3g}", detail, "good")
    budget = None if plan is None or not is_lossy(report) else plan.budget
    detail = "rounding, against the original" if not is_lossy(report) else "no limit was set"
    yield Tile("error", found, detail if budget is None else f"of {error(budget)} allowed", "good")


def _time(comparison: Comparison) -> Tile:
    tones: dict[str, Tone] = {"faster": "good", "slower": "bad"}
    tone = tones.get(comparison.verdict, "neutral")
    if comparison.ratio is None or comparison.low is None or comparison.high is None:
        return Tile("time", comparison.verdict, comparison.reason, tone)
    before = milliseconds(comparison.a.p50)
    after = "-" if comparison.b is None else milliseconds(comparison.b.p50)
    interval = f"{comparison.low:.3f} to {comparison.high:.3f}"
    detail = f"{comparison.verdict}; 95 % interval {interval}; {before} to {after} ms"
    return Tile("time", f"x{comparison.ratio:.3f}", detail, tone)
