"""`optimize`: the whole job, from a model to a smaller and faster one that is proved equal."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Bench, prepare
from structopt_onnx.api.estimate import estimate
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.lossy import LossySearch
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.api.result import Result
from structopt_onnx.errors import UsageError, ValidationFailed
from structopt_onnx.model.encoding import serialized_size
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.saving import save
from structopt_onnx.report.record import EstimateRow, PlanReport, Report, SampleReport, Size
from structopt_onnx.rewriting.cost import graph_cost
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.rewriting.record import RewriteRecord
from structopt_onnx.runtime.benchmark import BenchmarkSettings, benchmark
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.machine import current
from structopt_onnx.validation.models import ModelValidation, validate_models

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source
    from structopt_onnx.runtime.comparison import Comparison

# The saved file is validated on at most this many samples when nothing lossy was done.
_VALIDATED_SAMPLES = 32


@dataclass(frozen=True)
class Candidate:
    """A model that could be handed over, from the boldest to the original."""

    model: ir.Model
    manager: PassManager
    lossy: bool


class _RejectedError(Exception):
    """A candidate that is not kept, and why."""


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
    exact = run_exact(bench)
    candidates = [Candidate(exact.model, exact.manager, lossy=False)]
    plan: PlanReport | None = None
    rows: tuple[EstimateRow, ...] = ()
    basis, judged = "weights", bench.samples[:_VALIDATED_SAMPLES]
    sample_report = _samples(bench.samples)
    if checked.max_error is not None and bench.lossy_steps:
        search = LossySearch(bench, exact, checked.max_error)
        stage = search.run()
        plan, judged = stage.report, search.parts[2]
        sample_report = _samples(bench.samples, search.parts)
        if stage.applied:
            with bench.clock.stage("exact passes"):
                model = stage.manager.run(stage.model, bench.exact_steps)
            candidates.insert(0, Candidate(model, stage.manager, lossy=True))
    elif bench.lossy_steps:
        with bench.clock.stage("estimate"):
            rows, basis = estimate(bench, exact)
    if exact.manager.record.applied:
        unchanged = replace(exact.manager, record=RewriteRecord())
        candidates.append(Candidate(bench.model.clone(), unchanged, lossy=False))
    delivery = _deliver(bench, candidates, judged, output)
    report = Report(
        source=bench.name,
        output=None if output is None else str(output),
        options={**asdict(checked), "libraries": [str(p) for p in checked.libraries]},
        pipeline=pipeline_text(checked.steps()),
        machine=current(),
        before=_size(bench, bench.model, bench.reference),
        after=_size(bench, delivery.kept.model, delivery.path),
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


@dataclass
class _Delivery:
    kept: Candidate
    path: Path | None
    validation: ModelValidation | None = None
    comparison: Comparison | None = None
    rolled_back: tuple[str, ...] = ()


def _deliver(
    bench: Bench, candidates: list[Candidate], judged: Samples, output: str | Path | None
) -> _Delivery:
    """Write the boldest candidate that validates and is not slower; the last is the original."""
    rolled_back: list[str] = []
    for number, candidate in enumerate(candidates):
        delivery = _Delivery(candidate, None if output is None else Path(output))

        def check(path: Path) -> None:
            _check(bench, delivery, path, judged)  # noqa: B023 - called within this turn only

        try:
            if output is None:
                with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
                    save(candidate.model, Path(folder) / "candidate.onnx", check=check)
            else:
                save(
                    candidate.model,
                    output,
                    external_data=bench.options.external_data,
                    check=check,
                )
        except _RejectedError as rejected:
            what = "lossy rewrites" if candidate.lossy else "exact rewrites"
            rolled_back.append(f"{what}: {rejected}")
            if number == len(candidates) - 1:
                raise ValidationFailed(f"{bench.name}: nothing can be saved: {rejected}") from None
        else:
            delivery.rolled_back = tuple(rolled_back)
            return delivery
    raise AssertionError("there is always a candidate")


def _check(bench: Bench, delivery: _Delivery, path: Path, judged: Samples) -> None:
    """Validate the file as written and measure it; raises `_RejectedError`."""
    options, candidate = bench.options, delivery.kept
    with bench.clock.stage("validate"):
        bench.progress("validate")
        validation = validate_models(
            bench.reference,
            path,
            judged,
            max_error=options.max_error if candidate.lossy else None,
            exactness=Exactness.LOSSY
            if candidate.lossy
            else Exactness.weakest(step.exactness for step in bench.exact_steps),
            synthetic=judged.synthetic,
            threads=options.threads,
            libraries=options.libraries,
        )
    if not validation.passed:
        raise _RejectedError(validation.failures[0])
    delivery.validation = validation
    if not options.benchmark or not candidate.manager.record.applied:
        return
    with bench.clock.stage("benchmark"):
        bench.progress("benchmark")
        comparison = _measure(bench, path, judged)
    delivery.comparison = comparison
    slower = comparison.verdict == "slower"
    allowed = 1.0 if options.minimize == "time" else 1.0 + options.tolerate
    if slower and comparison.ratio is not None and comparison.ratio > allowed:
        raise _RejectedError(f"significantly slower: {comparison.summary()}")


def _measure(bench: Bench, path: Path, judged: Samples) -> Comparison:
    settings = BenchmarkSettings(
        seconds=bench.options.benchmark_seconds,
        threads=bench.options.threads,
        seed=bench.options.seed,
        libraries=bench.options.libraries,
    )
    if isinstance(bench.reference, Path):
        return benchmark(bench.reference, path, judged, settings)
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
        original = Path(folder) / "original.onnx"
        original.write_bytes(bench.reference)
        return benchmark(original, path, judged, settings)


def _size(bench: Bench, model: ir.Model, stored: Path | bytes | None) -> Size:
    cost = graph_cost(model, PassManager(bench.target, shapes=bench.shapes).facts(model))
    cost = replace(cost, seconds=bench.target.seconds(cost))
    if isinstance(stored, Path):
        return Size(cost, model_file_bytes(stored))
    return Size(cost, serialized_size(model) if stored is None else len(stored))


def _samples(samples: Samples, parts: tuple[Samples, ...] = ()) -> SampleReport:
    report = SampleReport(samples.origin, samples.synthetic, len(samples))
    if not parts:
        return report
    fit, probe, final = (len(part) for part in parts)
    return replace(report, fit=fit, probe=probe, final=final, by_source=not parts[2].blocked)


def _notes(bench: Bench, plan: PlanReport | None, delivery: _Delivery) -> tuple[str, ...]:
    notes: list[str] = []
    if plan is not None and plan.final_error is None:
        notes.append("the error budget was met by changing nothing")
        if not plan.sites:
            notes.append("no lossy pass has a site to offer on this model")
    if plan is not None and bench.samples.synthetic and not bench.options.allow_synthetic:
        notes.append(
            "no calibration data: only numerically rank-deficient cuts were considered; "
            "give --calibration, or --allow-synthetic to judge by made-up inputs"
        )
    verdict = delivery.comparison.verdict if delivery.comparison is not None else None
    if verdict == "not measured":
        notes.append("not measured: kept because its predicted cost fell")
    if verdict == "no difference shown" and bench.options.minimize == "time":
        notes.append("no difference in time was shown: kept for its predicted cost and its size")
    if bench.clock.over():
        notes.append("the time limit was reached; what was found by then was kept")
    return tuple(notes)
