"""The lossy part of a report: sites, options, why, and what a budget might buy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from structopt_onnx.report.budgets import budgets_text, decision_lines, error_line
from structopt_onnx.report.figures import change, count, error, name, plural
from structopt_onnx.report.grid import Grid
from structopt_onnx.report.layout import line, section, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from structopt_onnx.report.plan_record import (
        CostReport,
        OptionReport,
        PlanReport,
        RecoveryReport,
        RefitReport,
        SiteReport,
    )
    from structopt_onnx.report.record import Report

_MOST_SITES = 16
_MOST_ROUNDS = 6


def plan_section(plan: PlanReport, *, kept: bool) -> RenderableType:
    """Lay out the sites, changed ones first, the largest savings before small ones.

    Parameters
    ----------
    plan
        The lossy part of a run.
    kept
        False when the plan was rolled back as a whole.
    """
    title = plan_title(plan, kept=kept)
    if not plan.sites:
        return section(title, line("no site has an option that could pay"))
    grid = site_grid(plan)
    some = grid.first(_MOST_SITES)
    parts: list[RenderableType] = [table_of(some)]
    if len(grid.rows) > len(some.rows):
        parts.append(_more(len(grid.rows) - len(some.rows)))
    return section(title, Group(*parts, *map(line, plan_lines(plan))))


def plan_title(plan: PlanReport, *, kept: bool) -> str:
    """Say how many sites were changed, and what for."""
    changed = sum(site.chosen is not None for site in plan.sites)
    done = "changed" if kept else "planned, then rolled back,"
    return (
        f"Lossy sites: {changed} of {len(plan.sites)} {done} for {plan.objective}, "
        f"{budgets_text(plan)}"
    )


def plan_lines(plan: PlanReport) -> Iterator[str]:
    """Say what was predicted and measured of the plan as a whole, and how it came about."""
    yield _totals(plan)
    yield from decision_lines(plan.metric)
    if plan.refit is not None:
        yield _refit(plan.refit)
    if plan.recovery is not None:
        yield _recovery(plan.recovery)
    if plan.undone:
        yield f"undone on the final part: {'; '.join(plan.undone)}"


def site_grid(plan: PlanReport) -> Grid:
    """Put every site in a row, in the order of `ordered_sites`."""
    rows = tuple(_site_row(site) for site in ordered_sites(plan))
    headers = ("weight", "pass", "chosen", "parameters", "predicted", "probed alone", "why")
    return Grid(headers, rows, (3, 4), whole=(1,))


def ordered_sites(plan: PlanReport) -> list[SiteReport]:
    """Return the sites, changed ones first, the largest savings before small ones."""
    return sorted(plan.sites, key=lambda site: (site.chosen is None, _saved(site)))


def offers_section(plan: PlanReport) -> RenderableType:
    """Lay out what could be had at each site, where nothing was tried yet."""
    grid = offer_grid(plan)
    if not grid.rows:
        return section(offers_title(plan))
    some = grid.first(_MOST_SITES)
    parts: list[RenderableType] = [table_of(some)]
    if len(grid.rows) > len(some.rows):
        parts.append(_more(len(grid.rows) - len(some.rows)))
    return section(offers_title(plan), *parts)


def offers_title(plan: PlanReport) -> str:
    """Say how many sites have something on offer, and when they would be changed."""
    if not plan.sites:
        return "Lossy sites: none"
    allowed = f"for {budgets_text(plan)}" if budgets_text(plan) else "if --max-error allows"
    return f"Lossy sites: {sites_on_offer(plan)} of {len(plan.sites)} on offer, {allowed}"


def sites_on_offer(plan: PlanReport) -> int:
    """Count the sites where an option lowers the cost."""
    return sum(bool(site.options) for site in plan.sites)


def offer_grid(plan: PlanReport) -> Grid:
    """Put what every site has on offer in a row."""
    headers = ("weight", "options", "parameters", "error at the site", "note")
    return Grid(headers, tuple(_offer_row(site) for site in plan.sites), (2, 3))


def estimate_section(report: Report) -> RenderableType:
    """Lay out what lossy budgets might buy."""
    title, grid, lines = estimate_parts(report)
    parts: list[RenderableType] = [table_of(grid)] if grid.rows else []
    return section(title, *parts, *map(line, lines))


def estimate_parts(report: Report) -> tuple[str, Grid, tuple[str, ...]]:
    """Return a title, a row per error and lines below: what lossy budgets might buy."""
    now = report.after.cost
    rows = tuple(
        (
            error(row.local_error),
            f"{count(row.parameters)} ({change(now.parameters, row.parameters)})",
            f"{count(row.macs)} ({change(now.macs, row.macs)})",
        )
        for row in report.estimate
    )
    basis = {
        "calibration": "activations on the calibration data",
        "weights": "weights alone, so a rough one",
    }.get(report.estimate_basis, report.estimate_basis)
    title = f"What --max-error could buy: an estimate from the spectra of the {basis}"
    headers = ("error per site", "parameters", "MACs")
    if any((row.parameters, row.macs) != (now.parameters, now.macs) for row in report.estimate):
        doubt = "nothing was probed: the error at the outputs may be smaller or larger"
        return title, Grid(headers, rows, (0, 1, 2)), (doubt,)
    largest = max((row.local_error for row in report.estimate), default=0.0)
    lines = [f"nothing, up to an error of {error(largest)} at each site"]
    if report.estimate_basis == "weights":
        lines.append(
            "this rests on the weights alone: calibration data usually allow far more, so give "
            "--calibration to know"
        )
    return title, Grid(headers, ()), tuple(lines)


def _offer_row(site: SiteReport) -> tuple[str, ...]:
    if not site.options:
        return _weights(site.weights), "none pays", count(site.cost.parameters), "-", site.why
    ends = site.options[0], site.options[-1]
    labels = [option.label for option in ends]
    sizes = [count(option.cost.parameters) for option in ends]
    errors = [error(option.local_error**0.5) for option in ends]
    return (
        _weights(site.weights),
        f"{len(site.options)}: {_range(labels)}",
        f"{count(site.cost.parameters)} -> {_range(sizes)}",
        _range(errors),
        f"by {site.basis}",
    )


def _range(ends: Sequence[str]) -> str:
    return " ... ".join(dict.fromkeys(ends))


def _more(number: int) -> RenderableType:
    return line(f"and {plural(number, 'site')} more (--json lists all)")


def _weights(weights: Sequence[str]) -> str:
    more = f" (+{len(weights) - 1})" if len(weights) > 1 else ""
    return name(weights[0] if weights else "", 32) + more


def _site_row(site: SiteReport) -> tuple[str, ...]:
    option = _chosen(site)
    if option is None:
        parameters, predicted = count(site.cost.parameters), "-"
    else:
        parameters = f"{count(site.cost.parameters)} -> {count(option.cost.parameters)}"
        predicted = _predicted(option)
    probe = next(
        (p for p in site.probes if p[0] == site.chosen), site.probes[:1] and site.probes[0]
    )
    return (
        _weights(site.weights),
        site.step,
        site.chosen or "kept",
        parameters,
        predicted,
        f"{probe[0]}: {error(probe[1])}" if probe else "-",
        site.why,
    )


def _predicted(option: OptionReport) -> str:
    if option.output_error is not None:
        return error(option.output_error)
    # Local errors are mean squares; everything else printed is a norm.
    return f"local {error(option.local_error**0.5)}"


def _chosen(site: SiteReport) -> OptionReport | None:
    return next((o for o in site.options if o.label == site.chosen), None)


def _saved(site: SiteReport) -> int:
    option = _chosen(site)
    return -site.cost.parameters if option is None else option.cost.macs - site.cost.macs


def _totals(plan: PlanReport) -> str:
    looks = plural(plan.final_evaluations, "evaluation")
    times = "" if plan.costs is None else f"; {_times(plan.costs)}"
    rounds = plural(plan.rounds, "round")
    return f"{error_line(plan)}{rounds} of planning, {looks} on the final part{times}"


def _refit(refit: RefitReport) -> str:
    if not refit.kept:
        return (
            f"refit not kept: {plural(refit.factors, 'last factor')} fitted to the inputs that the "
            f"plan makes lowered no error on the probe part ({error(refit.before)})"
        )
    kept = [r for r in refit.rounds if r.kept]
    told = [
        f"{_weights(r.weights)}: {r.kept}, {error(r.before)} -> {error(r.after)}"
        for r in kept[:_MOST_ROUNDS]
    ]
    more = f"; and {len(kept) - len(told)} more" if len(kept) > len(told) else ""
    return (
        f"refit kept for {refit.kept} of {plural(refit.factors, 'last factor')}: error on the "
        f"probe part {error(refit.before)} -> {error(refit.after)} ({'; '.join(told)}{more})"
    )


def _recovery(recovery: RecoveryReport) -> str:
    if recovery.before is None or recovery.after is None:
        return f"recovery not done: {recovery.stopped}"
    told = (
        f"{plural(recovery.weights, 'weight')} fine-tuned in {plural(recovery.steps, 'step')} "
        f"({recovery.stopped}): error on the probe part {error(recovery.before)} -> "
        f"{error(recovery.after)}"
    )
    if recovery.final_before is not None and recovery.final_after is not None:
        told += (
            f", on the final part {error(recovery.final_before)} -> {error(recovery.final_after)}"
        )
    return f"recovery {'kept' if recovery.kept else 'not kept'}: {told}"


def _times(costs: CostReport) -> str:
    known = f"{costs.measured + costs.cached} of {plural(costs.regions, 'region')} timed"
    from_disk = f", {costs.cached} of them in earlier runs" if costs.cached else ""
    failed = f" ({costs.failed})" if costs.failed else ""
    return f"{known}{from_disk}{failed}"
