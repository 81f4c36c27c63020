"""`explain`: what optimizing would do to a model, and what it would leave alone, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Bench, prepare
from structopt_onnx.api.exact import ExactStage
from structopt_onnx.api.inputs import sample_report
from structopt_onnx.api.plan_report import metric_report
from structopt_onnx.api.progress import logged
from structopt_onnx.api.recipe import recipe_text, run_options
from structopt_onnx.api.sites import Site, collect_sites
from structopt_onnx.report.plan_record import KeepReport, PlanReport
from structopt_onnx.report.record import Report
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.runtime.coverage import coverage
from structopt_onnx.runtime.machine import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source

# Samples are split into a part to fit on, one to probe with and one to judge by.
_LEAST_SPLIT = 3


def explain(
    source: Source,
    *,
    calibration: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    recipe: str | Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,  # noqa: ANN401 - the fields of OptimizeOptions
) -> Report:
    """Say what `optimize` would do: what applies, what is refused and why. Writes nothing.

    Exact passes are run on a copy. Lossy passes say what they offer: with calibration data, or
    made-up inputs where ``allow_synthetic`` is given, by the activations, else by the weights
    alone. Nothing is probed, validated or measured, so the outputs' errors are not known.

    Parameters
    ----------
    source
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`; never changed.
    calibration
        Sample inputs: an npz file, a folder, ``module:factory``, arrays by input name, or feeds.
    recipe
        Options from a TOML file or a preset (see `read_recipe`); what is given here wins.
    progress
        Called with a line about what happens now.
    **options
        Fields of `OptimizeOptions`.

    Returns
    -------
    Report
        `applied` is what the exact passes would do, the plan holds every lossy site with its
        options, none of them chosen.

    Raises
    ------
    UsageError
        For a wrong option.
    ModelError
        When the model can't be read or run.
    DataError
        When the calibration data does not fit the model.
    InternalError
        For a bug in a pass.
    """
    checked, calibration = run_options("explain", recipe, calibration, options)
    bench = prepare(source, checked, calibration, logged(progress))
    manager = bench.manager()
    with bench.clock.stage("exact passes"):
        model = manager.run(bench.model.clone(), bench.exact_steps)
    exact = ExactStage(model, manager, frozenset(), ())
    with bench.clock.stage("fit"):
        fit = _fit_part(bench)
        sites = collect_sites(bench, exact, fit) if bench.lossy_steps else []
    with bench.clock.stage("encode"):
        model = manager.run(model.clone(), bench.encoding_steps)
    fitted = any(site.choice.basis == "calibration" for site in sites)
    report = replace(sample_report(bench.samples), fit=len(fit))
    return Report(
        source=bench.name,
        output=None,
        options=checked.record(),
        recipe=recipe_text(checked, calibration),
        pipeline=pipeline_text(checked.steps()),
        machine=current(),
        before=bench.size(bench.model, bench.reference, bench.shapes),
        after=bench.size(model),
        applied=tuple(manager.record.applied),
        refused=tuple(manager.record.refused),
        samples=report if fitted else replace(report, fit=0),
        plan=_plan(bench, sites) if bench.lossy_steps else None,
        coverage_before=coverage(bench.model, bench.target),
        coverage_after=coverage(model, bench.target),
        notes=("nothing was written, probed, validated or measured",),
        seconds=dict(bench.clock.seconds),
    )


def _fit_part(bench: Bench) -> Samples:
    """Return the samples that `optimize` would fit on; all where there are too few to split."""
    samples = bench.samples
    return samples.split()[0] if len(samples) >= _LEAST_SPLIT else samples


def _plan(bench: Bench, sites: list[Site]) -> PlanReport:
    objective = bench.options.objective
    for site in sites:
        free = site.probed_option(objective) is not None
        site.why = "not probed" if free else site.unpaying(objective)
    options = bench.options
    return PlanReport(
        budget=options.max_error,
        objective=objective,
        sites=tuple(site.report(None, objective) for site in sites),
        metric=metric_report(bench),
        keep=None if options.kept is None else KeepReport(objective, options.kept.share),
    )
