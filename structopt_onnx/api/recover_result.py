"""`recover`: a result's weights fine-tuned afterwards, on the samples it had or on others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Clock
from structopt_onnx.api.deliver import Candidate, deliver
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.inputs import Opened, samples_for
from structopt_onnx.api.lossy import LossyStage
from structopt_onnx.api.progress import logged
from structopt_onnx.api.recover import recovered, require_torch
from structopt_onnx.api.replay_record import RECORD_KEY
from structopt_onnx.errors import UsageError, ValidationFailed
from structopt_onnx.rewriting.record import RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.api.result import Result


def recover(
    result: Result,
    calibration: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    *,
    minutes: float = 10.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Result:
    """Fine-tune the weights that lossy rewrites touched, towards the original's outputs.

    Parameters
    ----------
    result
        What `optimize` returned; never changed.
    calibration
        Sample inputs to learn from, as `optimize` takes them, no labels; those of the run when
        not given. They are split as there: learned from, stopped by, judged by.
    minutes
        Wall time at most. The same seed gives the same weights unless the time cuts it short.
    progress
        Called with a line about what happens now.

    Returns
    -------
    Result
        The model with new weights, never worse on the final part than before; the same result
        where nothing was better, with the reason in ``report.plan.recovery``.

    Raises
    ------
    UsageError
        Without torch, or when the result has no lossy rewrite.
    DataError
        When the calibration data does not fit the model.
    """
    require_torch()
    known, plan = result.bench, result.report.plan
    if known is None or plan is None or plan.final_error is None:
        raise UsageError("recover needs a result of optimize with lossy rewrites in it")
    options = replace(known.options, recover=True, recover_minutes=minutes)
    bench = replace(known, options=options, progress=logged(progress), clock=Clock())
    if calibration is not None:
        opened = Opened(bench.name, bench.model, bench.reference)
        samples = samples_for(
            opened,
            calibration,
            seed=options.seed,
            threads=options.threads,
            libraries=options.libraries,
            unpad=True,
        )
        bench = replace(bench, samples=samples)
    manager = bench.manager()
    manager.record = RewriteRecord(list(result.report.applied), list(result.report.refused))
    parts = bench.samples.split()
    start = LossyStage(result.model, manager, plan)
    stage = recovered(bench, run_exact(bench).model, start, parts)
    told = replace(result.report, plan=stage.report)
    if not stage.plan:
        return replace(result, report=told)
    # A replay would have to write these weights before the exact passes that came after the plan.
    stage.model.metadata_props.pop(RECORD_KEY, None)
    candidate = Candidate(stage.model, stage.manager, "recovery", lossy=True)
    try:
        delivery = deliver(
            bench, [candidate], parts[2], None, most_bytes=result.report.before.file_bytes
        )
    except ValidationFailed as error:
        tuned = stage.report.recovery
        kept = None if tuned is None else replace(tuned, kept=False, stopped=str(error))
        return replace(result, report=replace(told, plan=replace(plan, recovery=kept)))
    report = replace(
        told,
        after=delivery.size or told.after,
        applied=tuple(stage.manager.record.applied),
        validation=delivery.validation,
        comparison=delivery.comparison or told.comparison,
    )
    return replace(result, model=delivery.kept.model, report=report)
