"""`optimize`: the whole job, from a model to a smaller and faster one that is proved equal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Bench, prepare
from structopt_onnx.api.deliver import Candidate, deliver
from structopt_onnx.api.estimate import estimate
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.inputs import sample_report
from structopt_onnx.api.multiples import with_measured_multiples
from structopt_onnx.api.progress import logged
from structopt_onnx.api.recipe import recipe_text, run_options
from structopt_onnx.api.recover import planned, require_torch
from structopt_onnx.api.remarks import notes, warnings
from structopt_onnx.api.replay_record import RECORD_KEY, encode
from structopt_onnx.api.reproducer import reproducible
from structopt_onnx.api.result import Result
from structopt_onnx.api.speed import without_slow_steps
from structopt_onnx.errors import ValidationFailed
from structopt_onnx.report.record import EstimateRow, Report, Size
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.rewriting.record import RewriteRecord
from structopt_onnx.runtime.coverage import coverage
from structopt_onnx.runtime.machine import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from structopt_onnx.api.deliver import Delivery
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.lossy import LossyStage
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source
    from structopt_onnx.report.plan_record import PlanReport

# The saved file is validated on at most this many samples when nothing lossy was done.
_VALIDATED_SAMPLES = 32


def optimize(
    source: Source,
    output: str | Path | None = None,
    *,
    calibration: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    recipe: str | Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    executor: Executor | None = None,
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
    recipe
        Options from a TOML file or a preset (see `read_recipe`); what is given here wins.
    progress
        Called with a line about what happens now.
    executor
        Where factorizations are computed, such as the one that ``get_executor()`` of a Dask
        client gives; by default in a few threads. It changes when results come, not what they
        are. What is sent are arrays, never models.
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
        When not even the unchanged model survives being written and read again, or `output` is
        given and the model does not come down to what `keep` asks for.
    InternalError
        For a bug in a pass.
    """
    given, calibration = run_options("optimize", recipe, calibration, options)
    if given.recover:
        require_torch()
    progress = logged(progress)
    checked = with_measured_multiples(given, progress)
    bench = prepare(source, checked, calibration, progress, executor)
    before = bench.size(bench.model, bench.reference, bench.shapes)
    with reproducible(bench):
        return _run(bench, before, output, recipe_text(given, calibration))


def _run(bench: Bench, before: Size, output: str | Path | None, recipe: str) -> Result:
    checked = bench.options
    exact = run_exact(bench)
    plan: PlanReport | None = None
    rows: tuple[EstimateRow, ...] = ()
    basis, judged = "weights", bench.samples[:_VALIDATED_SAMPLES]
    told = sample_report(bench.samples)
    stage: LossyStage | None = None
    if checked.lossy and bench.lossy_steps:
        if checked.benchmark:
            # What costs time before must not hide behind what lossy rewrites save.
            exact = without_slow_steps(bench, exact, judged)
        search, stage = planned(bench, exact)
        plan, judged, told = stage.report, search.parts[2], search.tell(told)
        del search  # with what the options that were not chosen are fitted to
    elif bench.lossy_steps:
        with bench.clock.stage("estimate"):
            rows, basis = estimate(bench, exact)
    candidates = _candidates(bench, exact, stage, judged)
    try:
        delivery = deliver(bench, candidates, judged, output, most_bytes=before.file_bytes)
    except ValidationFailed as failed:
        if plan is None or plan.keep is None or not plan.unmet:
            raise
        reason = f"{bench.name}: keep {checked.kept} not reached: {plan.unmet}; nothing was written"
        raise ValidationFailed(reason) from failed
    if plan is not None:
        plan = _as_delivered(plan, delivery, before)
    report = Report(
        source=bench.name,
        output=None if output is None else str(output),
        options=checked.record(),
        recipe=recipe,
        pipeline=pipeline_text(checked.steps()),
        machine=current(),
        before=before,
        after=delivery.size or before,
        applied=tuple(delivery.kept.manager.record.applied),
        refused=tuple(delivery.kept.manager.record.refused),
        samples=told,
        plan=plan,
        estimate=rows,
        estimate_basis=basis,
        validation=delivery.validation,
        comparison=delivery.comparison,
        rolled_back=delivery.rolled_back,
        coverage_before=coverage(bench.model, bench.target),
        coverage_after=coverage(delivery.kept.model, bench.target),
        warnings=warnings(bench, plan, delivery),
        notes=notes(bench, plan, delivery, before),
        seconds=dict(bench.clock.seconds),
    )
    return Result(delivery.kept.model, report, bench)


def _candidates(
    bench: Bench, exact: ExactStage, stage: LossyStage | None, judged: Samples
) -> Iterator[Candidate]:
    """Yield what could be handed over, from the boldest on, the record in its metadata."""
    if stage is not None and stage.plan:
        model, manager = stage.model, stage.manager
        if bench.options.fuel is None:
            with bench.clock.stage("exact passes"):
                model = manager.run(model, bench.exact_steps)
        yield from _finished(bench, exact, Candidate(model, manager, "all rewrites", lossy=True))
    applied = bool(exact.manager.record.applied)

    def faster() -> Candidate | None:
        fewer = without_slow_steps(bench, exact, judged)
        if fewer is exact or not fewer.manager.record.applied:
            return None
        what = "exact rewrites without those that cost time"
        return next(_finished(bench, fewer, Candidate(fewer.model, fewer.manager, what)))

    rewritten = Candidate(
        exact.model, exact.manager, "exact rewrites", least=not applied, faster=faster
    )
    yield from _finished(bench, exact, rewritten)
    if stage is not None and stage.plan:
        # Where only the exact ones cost time, the lossy ones may still be worth having.
        alone, manager = bench.model.clone(), bench.manager()
        if manager.apply_plan(alone, stage.plan):
            yield _recorded(bench, exact, Candidate(alone, manager, "lossy rewrites", lossy=True))
    unchanged = Candidate(bench.model.clone(), bench.manager(), "the original as read", least=True)
    yield _recorded(bench, exact, unchanged)


def _finished(bench: Bench, exact: ExactStage, candidate: Candidate) -> Iterator[Candidate]:
    """Yield a candidate with its weights encoded, if any are, and then as it is."""
    done = candidate.manager.record
    manager = replace(
        candidate.manager,
        record=RewriteRecord(list(done.applied), list(done.refused), done.sweeps),
    )
    with bench.clock.stage("encode"):
        model = manager.run(candidate.model.clone(), bench.encoding_steps)
    if len(manager.record.applied) > len(done.applied):
        what = f"{candidate.what}, weights encoded"
        encoded = replace(candidate, model=model, manager=manager, what=what, least=False)
        yield _recorded(bench, exact, encoded)
    else:
        candidate = replace(candidate, manager=manager)
    yield _recorded(bench, exact, candidate)


def _recorded(bench: Bench, exact: ExactStage, candidate: Candidate) -> Candidate:
    """Add what the exact stage left out, and the record that `bisect` replays."""
    if applied := candidate.manager.record.applied:
        fitted_after = len(exact.manager.record.applied)
        record = encode(bench, applied, exact.deny, fitted_after=fitted_after)
        candidate.model.metadata_props[RECORD_KEY] = record
    return replace(candidate, rolled_back=exact.rolled_back)


def _as_delivered(plan: PlanReport, delivery: Delivery, before: Size) -> PlanReport:
    """Let the file as written, which was judged on the final part too, have the last word."""
    # The first file judged is the plan kept; one more is another look at the final part.
    looks = plan.final_evaluations + max(0, delivery.judged - 1)
    plan = replace(plan, final_evaluations=looks)
    if not delivery.kept.lossy or delivery.validation is None:
        return plan
    checks = delivery.validation.exact, delivery.validation.shipped
    metric, keep, size = plan.metric, plan.keep, delivery.size
    if metric is not None and delivery.measured is not None:
        metric = replace(metric, final=delivery.measured.metric)
    if keep is not None and size is not None:
        was, now = before.cost.of(keep.objective), size.cost.of(keep.objective)
        keep = replace(keep, reached=now / was)
    return replace(plan, final_error=max(check.error for check in checks), metric=metric, keep=keep)
