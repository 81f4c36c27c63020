"""Charts of a comparison: how times are distributed, and what each replicate says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.report.charts.chart import Axis, Chart, Mark, Role, Series
from structopt_onnx.report.figures import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.runtime.comparison import Comparison

# A single interruption would squeeze everything else into the left edge.
_SHOWN = 0.99


def latency_chart(comparison: Comparison) -> Chart | None:
    """Show the distribution of times; None where none is on record."""
    times: list[tuple[str, Role, list[float]]] = [
        ("before", "before", [ms for r in comparison.replicate_times for ms in r.a]),
        ("after", "after", [ms for r in comparison.replicate_times for ms in r.b]),
    ]
    shown = [(name, role, sorted(values)) for name, role, values in times if values]
    if not shown:
        return None
    edge = max(float(np.quantile(values, _SHOWN)) for _, _, values in shown)
    series = tuple(
        Series(name, _shares(values, edge), "steps", role) for name, role, values in shown
    )
    marks = tuple(
        Mark(f"median {name}: {milliseconds(float(np.median(values)))} ms", "x",
             float(np.median(values)), role)
        for name, role, values in shown
    )  # fmt: skip
    return Chart(
        "latency",
        "Time of one run",
        f"Share of the runs that took at most so long ({comparison.clock}, one thread); the "
        "slowest 1 % lie beyond the right edge.",
        Axis("milliseconds"),
        Axis("share of runs", percent=True),
        series,
        marks,
    )


def ratio_chart(comparison: Comparison) -> Chart | None:
    """Show the ratio of each replicate with the interval they make; None where there is none."""
    found = [(n, r) for n, r in enumerate(comparison.replicate_times, 1) if r.ratio is not None]
    if comparison.ratio is None or not found:
        return None
    ratios = tuple((float(n), r.ratio) for n, r in found if r.ratio is not None)
    control = tuple((float(n), r.control_ratio) for n, r in found if r.control_ratio is not None)
    interval = f"x{comparison.ratio:.3f}"
    if comparison.low is not None and comparison.high is not None:
        interval += f", 95 % interval {comparison.low:.3f} to {comparison.high:.3f}"
    return Chart(
        "ratio",
        "Time after over time before",
        "One point per replicate, in which all sessions are made anew: the models against each "
        "other, and the original against itself. The band is the 95 % interval; below 1 is "
        "faster.",
        Axis("replicate"),
        Axis("ratio of times"),
        tuple(
            series
            for series in (
                Series("before against itself", control, "dots", "before"),
                Series("after over before", ratios, "dots", "after"),
            )
            if series.points
        ),
        (
            Mark("no change", "y", 1.0, "plain"),
            Mark(interval, "y", comparison.ratio, "after", comparison.low, comparison.high),
        ),
    )


def _shares(values: Sequence[float], edge: float) -> tuple[tuple[float, float], ...]:
    # Equal times make one step.
    steps: dict[float, float] = {values[0]: 0.0}
    points = [(values[0], 0.0)]
    for number, ms in enumerate(values, 1):
        if ms <= edge:
            steps[ms] = number / len(values)
    points += steps.items()
    return tuple(points)
