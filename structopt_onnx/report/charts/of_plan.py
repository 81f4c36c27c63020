"""Charts of the lossy part of a run: error against size, spectra, options of a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.charts.chart import Axis, Chart, Mark, Series
from structopt_onnx.report.figures import change, count, error

if TYPE_CHECKING:
    from structopt_onnx.report.curve_record import CurvePoint
    from structopt_onnx.report.plan_record import SiteReport
    from structopt_onnx.report.record import Report

# Beyond so many directions, the first ones would all lie on the axis.
_MANY = 64


def curve_chart(report: Report, *, kept: bool) -> Chart | None:
    """Show what error other sizes would have; None where nothing was searched.

    Parameters
    ----------
    report
        The record of a run.
    kept
        False when the plan was rolled back as a whole.
    """
    plan = report.plan
    if plan is None or plan.curve is None:
        return None
    if not plan.curve.tried and all(p.predicted == 0 for p in plan.curve.offered):
        return None
    whole = report.before.cost.bytes or 1

    def point(p: CurvePoint, value: float) -> tuple[float, float]:
        return p.cost.bytes / whole, value

    offered = sorted(plan.curve.offered, key=lambda p: p.predicted)
    tried = [(p, p.measured) for p in plan.curve.tried if p.measured is not None]
    series = [
        Series(
            "predicted, from single sites",
            tuple(point(p, p.predicted) for p in offered),
            "line",
            "plain",
        ),
        Series(
            "plans tried, on the probe part",
            tuple(point(p, measured) for p, measured in tried),
            "dots",
            "before",
            tuple(f"{_left(p)}: {error(measured)} on the probe part" for p, measured in tried),
        ),
    ]
    if kept and plan.final_error is not None:
        here = (report.after.cost.bytes / whole, plan.final_error)
        words = f"this model: {error(plan.final_error)} on the final part"
        series.append(Series("this model, on the final part", (here,), "dots", "chosen", (words,)))
    marks: tuple[Mark, ...] = ()
    if plan.budget is not None:
        marks = (Mark(f"allowed: {error(plan.budget)}", "y", plan.budget, "limit"),)
    return Chart(
        "error-against-size",
        "Error against size",
        f"Each point is a plan for the whole model, chosen for the least {plan.objective}: how "
        "much of the weights it leaves, and how far the outputs are off. Lower left is better.",
        Axis("weights' bytes left", percent=True),
        Axis("error at the outputs", log=True),
        tuple(s for s in series if s.points),
        marks,
    )


def spectrum_chart(site: SiteReport, name: str) -> Chart | None:
    """Show how the energy of a site's output falls, and what is kept of it; None without it."""
    if not site.spectrum:
        return None
    chosen = next((o for o in site.options if o.label == site.chosen), None)
    cut = chosen is not None and chosen.rank > 0
    marks: tuple[Mark, ...] = ()
    says = "Share of the output's energy along each direction"
    if cut and chosen is not None:
        marks = (Mark(f"kept: {chosen.rank}", "x", chosen.rank + 0.5, "chosen"),)
        says += "; what lies right of the line was left out"
    points = tuple((float(number), share) for number, share in site.spectrum)
    return Chart(
        f"{name}-spectrum",
        "Spectrum",
        f"{says}.",
        Axis("direction", log=site.spectrum[-1][0] > _MANY),
        Axis("share of energy", log=True),
        (Series("energy", points, "line", "plain"), Series("energy", points, "dots", "plain")),
        marks,
        ", ".join(site.weights),
    )


def options_chart(site: SiteReport, name: str) -> Chart | None:
    """Show what each option of a site would leave and cost; None where there is none."""
    if not site.options:
        return None
    # Local errors are mean squares; everything else shown is a norm.
    points = [(float(o.cost.parameters), o.local_error**0.5) for o in site.options]
    titles = [
        f"{o.label}: {count(o.cost.parameters)} parameters "
        f"({change(site.cost.parameters, o.cost.parameters)}), error {error(o.local_error**0.5)}"
        for o in site.options
    ]
    chosen = [n for n, o in enumerate(site.options) if o.label == site.chosen]
    others = [n for n in range(len(points)) if n not in chosen]
    groups = (("on offer", "plain", others), ("chosen", "chosen", chosen))
    return Chart(
        f"{name}-options",
        "Options",
        "What each option leaves of the parameters, and its error at the layer's own output.",
        Axis("parameters"),
        Axis("error at the layer", log=True),
        tuple(
            Series(
                what,
                tuple(points[n] for n in numbers),
                "dots",
                "chosen" if role == "chosen" else "plain",
                tuple(titles[n] for n in numbers),
            )
            for what, role, numbers in groups
            if numbers
        ),
        (Mark("as it was", "x", float(site.cost.parameters), "before"),),
        ", ".join(site.weights),
    )


def _left(point: CurvePoint) -> str:
    return f"{count(point.cost.parameters)} parameters"
