"""`optimize`: the whole job, from a model to a smaller and faster one that is proved equal."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Bench, prepare
from structopt_onnx.api.deliver import Candidate, Delivery, deliver
from structopt_onnx.api.estimate import estimate
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.lossy import LossySearch
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.api.replay_record import RECORD_KEY, encode
from structopt_onnx.api.reproducer import reproducible
from structopt_onnx.api.result import Result
from structopt_onnx.errors import UsageError
from structopt_onnx.report.record import EstimateRow, PlanReport, Report, SampleReport, Size
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.runtime.machine import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source
    from structopt_onnx.validation.metrics import OutputMetrics

# The saved file is validated on at most this many samples when nothing lossy was done.
_VALIDATED_SAMPLES = 32


def optimize(
    source: Source,
    output: str | Path | None = None,
    *,
    calibration: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,  # noqa: ANN401 - the fields of OptimizeOptions
) -> Result:
    """Optimize a model, prove the result against the original, measure it, and write it.

    Parameters
    ----------
    source
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`; never changed.
    output
        Where to write; may be the source itself. None writes nothing.
    calibration
        Sample inputs: an npz file, a folder, ``module:factory``, arrays by input name, or feeds.
    progress
        Called with a line about what happens now.
    **options
        Fields of `OptimizeOptions`, such as ``max_error=0.05``.

    Returns
    -------
    Result
        The model and the report.

    Raises
    ------
    UsageError
        For a wrong option, or an output that can't be written.
    ModelError
        When the model can't be read or run.
    DataError
        When the calibration data does not fit the model.
    ValidationFailed
        When not even the unchanged model survives being written and read again.
    InternalError
        For a bug in a pass.
    """
    try:
        checked = OptimizeOptions(**options)
    except TypeError as error:
        raise UsageError(str(error).replace("OptimizeOptions.__init__()", "optimize")) from None
    bench = prepare(source, checked, calibration, progress)
    before = bench.size(bench.model, bench.reference, bench.shapes)
    with reproducible(bench):
        return _run(bench, before, output)


def _run(bench: Bench, before: Size, output: str | Path | None) -> Result:
    checked = bench.options
    exact = run_exact(bench)
    candidates = [Candidate(exact.model, exact.manager, "exact rewrites")]
    plan: PlanReport | None = None
    rows: tuple[EstimateRow, ...] = ()
    basis, judged = "weights", bench.samples[:_VALIDATED_SAMPLES]
    sample_report = _samples(bench.samples)
    if checked.max_error is not None and bench.lossy_steps:
        search = LossySearch(bench, exact, checked.max_error)
        stage = search.run()
        plan, judged = stage.report, search.parts[2]
        sample_report = _samples(bench.samples, search.parts)
        if stage.plan:
            model = stage.model
            if checked.fuel is None:
                with bench.clock.stage("exact passes"):
                    model = stage.manager.run(model, bench.exact_steps)
            candidates.insert(0, Candidate(model, stage.manager, "all rewrites", lossy=True))
            if exact.manager.record.applied:
                # Where only the exact ones cost time, the lossy ones may still be worth having.
                alone, manager = bench.model.clone(), bench.manager()
                if manager.apply_plan(alone, stage.plan):
                    candidates.append(Candidate(alone, manager, "lossy rewrites", lossy=True))
    elif bench.lossy_steps:
        with bench.clock.stage("estimate"):
            rows, basis = estimate(bench, exact)
    if exact.manager.record.applied:
        candidates.append(Candidate(bench.model.clone(), bench.manager(), "the original as read"))
    for candidate in candidates:
        applied = candidate.manager.record.applied
        if applied:
            candidate.model.metadata_props[RECORD_KEY] = encode(
                bench, applied, exact.deny, fitted_after=len(exact.manager.record.applied)
            )
    delivery = deliver(bench, candidates, judged, output, most_bytes=before.file_bytes)
    report = Report(
        source=bench.name,
        output=None if output is None else str(output),
        options={**asdict(checked), "libraries": [str(p) for p in checked.libraries]},
        pipeline=pipeline_text(checked.steps()),
        machine=current(),
        before=before,
        after=bench.size(delivery.kept.model, delivery.path),
        applied=tuple(delivery.kept.manager.record.applied),
        refused=tuple(delivery.kept.manager.record.refused),
        samples=sample_report,
        plan=plan,
        estimate=rows,
        estimate_basis=basis,
        validation=delivery.validation,
        comparison=delivery.comparison,
        rolled_back=(*exact.rolled_back, *delivery.rolled_back),
        notes=_notes(bench, plan, delivery),
        seconds=dict(bench.clock.seconds),
    )
    return Result(delivery.kept.model, report)


def _samples(samples: Samples, parts: tuple[Samples, ...] = ()) -> SampleReport:
    report = SampleReport(samples.origin, samples.synthetic, len(samples))
    if not parts:
        return report
    fit, probe, final = (len(part) for part in parts)
    return replace(report, fit=fit, probe=probe, final=final, by_source=not parts[2].blocked)


def _notes(bench: Bench, plan: PlanReport | None, delivery: Delivery) -> tuple[str, ...]:
    notes: list[str] = []
    if plan is not None and plan.final_error is None and not plan.sites:
        notes.append("no lossy pass has a site to offer on this model")
    if plan is not None and bench.samples.synthetic and not bench.options.allow_synthetic:
        notes.append(
            "no calibration data: only numerically rank-deficient cuts were considered; "
            "give --calibration, or --allow-synthetic to judge by made-up inputs"
        )
    if plan is not None and delivery.validation is not None:
        notes.extend(
            _coarse(output, plan.budget)
            for output in delivery.validation.exact.outputs
            if output.relative_l2 is None and 1 / output.samples > plan.budget
        )
    verdict = delivery.comparison.verdict if delivery.comparison is not None else None
    if verdict == "not measured":
        notes.append("not measured: kept because its predicted cost fell")
    if verdict == "no difference shown" and bench.options.minimize == "time":
        notes.append("no difference in time was shown: kept for its predicted cost and its size")
    if bench.clock.over():
        notes.append("the time limit was reached; what was found by then was kept")
    return tuple(notes)


def _coarse(output: OutputMetrics, budget: float) -> str:
    return (
        f"output '{output.name}' is judged by the share of samples that differ: {output.samples} "
        f"samples can't show a share as small as {budget:g}; give more"
    )
