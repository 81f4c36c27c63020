"""What to doubt about a run: what its samples and its target leave open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.figures import plural
from structopt_onnx.report.inputs import sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.report.record import Report


def is_lossy(report: Report) -> bool:
    """Whether the model that was kept holds anything lossy."""
    return any(applied.option is not None for applied in report.applied)


def caveats(report: Report) -> Iterator[str]:
    """Say what puts the verdict in question, and what the measurements do not show."""
    yield from report.warnings
    yield from _about_target(report)
    samples, lossy = report.samples, is_lossy(report)
    if samples.synthetic and lossy:
        yield (
            "errors were measured on synthetic inputs; on real ones they may be quite different: "
            "give --calibration"
        )
    elif samples.synthetic and report.validation is not None:
        inputs = plural(report.validation.shipped.samples, "synthetic input")
        yield f"validated on {inputs}: no data were given"
    if samples.synthetic and report.comparison is not None:
        listed = f", {sizes(samples.shapes)}" if samples.shapes else ""
        yield f"speed and MACs are of made-up inputs{listed}; give --calibration for real ones"
    if samples.by_source is False and lossy and not samples.synthetic:
        yield (
            "errors may be understated: the parts are contiguous blocks of the data, not "
            "different sources"
        )


def _about_target(report: Report) -> Iterator[str]:
    """Say what a run on this machine does not show of a target that is not here."""
    after = report.coverage_after
    if after is None:
        return
    if report.comparison is not None:
        yield (
            f"time was measured on the CPU, not on {after.target}, and is no reason there to keep "
            "or to drop a rewrite"
        )
    if after.unsupported:
        yield f"{after.target} does not list {', '.join(after.unsupported)}"
    if after.free_dimensions:
        yield (
            f"inputs have free dimensions, counted as fixed here: {after.target} takes few or no "
            "nodes of free size"
        )
