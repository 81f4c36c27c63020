"""Recovery: weights of a lossy plan fine-tuned to the original's outputs, kept where it helps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.api.judge import Judge
from structopt_onnx.api.lossy import LossySearch, LossyStage
from structopt_onnx.api.refit import Refitted
from structopt_onnx.api.refit_fits import Signer
from structopt_onnx.errors import UsageError
from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.report.plan_record import PlanReport, RecoveryReport
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.manager import Planned
from structopt_onnx.rewriting.passes import Choice, Option, Refusal
from structopt_onnx.runtime.machine import usable_cores
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.recovery.student import Student
    from structopt_onnx.recovery.tuning import Tuned

    Array = npt.NDArray[Any]

# A plan to be tuned may miss the limits by this factor.
_LOOSER = 2.0
_ROUNDING = "round-nonzeros"
# Elements of tuned weights from which on a second thread helps. With less to do, threads wait for
# each other, and on a busy machine ten times as long.
_WORTH_THREADS = 1_000_000
_TUNED_TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Recover(Signer):
    """Signs for weights that were fine-tuned."""

    name: ClassVar[str] = "recover"
    refusals: ClassVar[dict[str, str]] = {"superseded": "a weight is gone"}


def require_torch() -> None:
    """Raise `UsageError` where torch is not installed."""
    if find_spec("torch") is None:
        raise UsageError("recover needs torch: pip install 'structopt-onnx[export]'")


def planned(bench: Bench, exact: ExactStage) -> tuple[LossySearch, LossyStage]:
    """Plan, and fine-tune the plan where that is asked for.

    What fine-tuning can win back is not known beforehand. So a plan for looser limits is made and
    tuned first, and taken when the final part is within the user's; else one for these is.
    """
    options, looks = bench.options, 0
    looser = options.loosened(_LOOSER)
    if options.recover and looser != options:
        search = LossySearch(replace(bench, options=looser), exact)
        stage = _tuned_stage(bench, exact, search)
        looks = stage.report.final_evaluations
        if stage.plan:
            looks += 1
            if Judge(bench, search.parts[2]).measure(stage.model).within(options):
                return search, replace(stage, report=_limits(stage.report, options, looks))
    search = LossySearch(bench, exact)
    stage = _tuned_stage(bench, exact, search)
    looks += stage.report.final_evaluations
    return search, replace(stage, report=replace(stage.report, final_evaluations=looks))


def _limits(report: PlanReport, options: OptimizeOptions, looks: int) -> PlanReport:
    """Tell a looser plan by the user's limits."""
    metric = report.metric
    if metric is not None and options.max_drop is not None:
        metric = replace(metric, max_drop=options.max_drop)
    return replace(report, budget=options.max_error, metric=metric, final_evaluations=looks)


def _tuned_stage(bench: Bench, exact: ExactStage, search: LossySearch) -> LossyStage:
    stage = search.run()
    if not (bench.options.recover and stage.plan) or bench.blind:
        return stage
    with bench.clock.stage("recover"):
        return recovered(bench, exact.model, stage, search.parts)


def recovered(
    bench: Bench, teacher: ir.Model, stage: LossyStage, parts: tuple[Samples, Samples, Samples]
) -> LossyStage:
    """Fine-tune the weights that a plan made or changed; the stage as it was where nothing helps.

    Parameters
    ----------
    bench
        The run; `recover_minutes` is its limit.
    teacher
        The model before the plan: its outputs, and the values that the plan's model kept the
        names of, are the aim.
    stage
        The plan's model.
    parts
        The samples to learn from, to stop by, and to judge by.
    """
    from structopt_onnx.recovery.call import NotDifferentiableError  # noqa: PLC0415 - needs torch
    from structopt_onnx.recovery.student import Student  # noqa: PLC0415 - likewise

    # What a codebook or a shorter type holds would not be in it any more.
    held = {n for a in stage.manager.record.applied if a.step == _ROUNDING for n in a.site}
    names = [name for name in touched(teacher, stage.model) if name not in held]
    nothing = RecoveryReport(len(names))
    if not names:
        return _told(stage, replace(nothing, stopped="the plan made no weight that can be tuned"))
    fit, probe, last = parts
    judge, start = Judge(bench, probe), Refitted(stage.model, stage.manager)
    threads = usable_cores() if _elements(stage.model, names) >= _WORTH_THREADS else 1
    run: dict[str, Any] = {"threads": threads, "libraries": bench.options.libraries}
    try:
        student = Student(stage.model, names, seen=_hidden(teacher, stage.model, names), **run)
        teaching = Session(teacher, outputs=student.outputs, **run)
        tuned = _tuned(
            bench,
            student,
            teaching,
            fit,
            lambda weights: judge.error(start.with_round([written(weights)]).model),
            threads=threads,
        )
    except NotDifferentiableError as error:
        return _told(stage, replace(nothing, stopped=str(error)))
    report = replace(nothing, steps=tuned.steps, stopped=tuned.stopped, before=tuned.errors[0])
    if tuned.weights is None:
        return _told(stage, replace(report, after=tuned.errors[0]))
    done, final = start.with_round([written(tuned.weights)]), Judge(bench, last)
    best = min(tuned.errors)
    was, now = final.measure(stage.model), final.measure(done.model)
    report = replace(report, after=best, final_before=was.error, final_after=now.error)
    options = bench.options
    looks = stage.report.final_evaluations + final.evaluations
    worse = now.error > was.error or (now.drop or 0.0) > (was.drop or 0.0)
    if not done.planned or (worse and not (now.within(options) and not was.within(options))):
        return _told(stage, report, looks)
    plan = replace(
        stage.report,
        probe_error=best,
        predicted=best,
        spread=judge.measure(done.model, metric=False).spread,
        final_error=now.error,
        final_evaluations=looks,
        recovery=replace(report, kept=True),
    )
    return LossyStage(done.model, done.manager, plan, (*stage.plan, *done.planned))


def touched(before: ir.Model, after: ir.Model) -> list[str]:
    """Return the weights of a model that another one has not, or not with these numbers."""
    known = before.graph.initializers
    return [
        name
        for name, value in after.graph.initializers.items()
        if value.dtype in _TUNED_TYPES
        and value.const_value is not None
        and value not in after.graph.inputs
        and (name not in known or not _same(known[name].const_value, value.const_value))
    ]


def written(weights: Mapping[str, Array]) -> Planned:
    """Return the step that writes new numbers into weights, by name."""

    def patch(scope: Scope, facts: Facts) -> Patch | Refusal:
        del facts
        standing = scope.graph.initializers
        for name, array in weights.items():
            held = standing[name].const_value if name in standing else None
            if held is None or tuple(held.shape) != array.shape or not standing[name].uses():
                return Refusal("superseded", "not what was tuned", name)
        readers = [use.node for name in sorted(weights) for use in standing[name].uses()]
        data = {standing[name]: _like(standing[name], array) for name, array in weights.items()}
        title = f"fine-tuned {len(weights)} weights to the original's outputs"
        return Patch(title, readers[0], {scope: Edit(replace_data=data)})

    option = Option("fine-tuned", 0.0, Cost(), Cost(), patch)
    site = frozenset(weights)
    return Planned(Recover(), Choice(site, min(site), (option,), "calibration"), option)


def _tuned(
    bench: Bench,
    student: Student,
    teaching: Session,
    fit: Samples,
    error: Callable[[Mapping[str, Array]], float],
    *,
    threads: int,
) -> Tuned:
    from structopt_onnx.recovery.tuning import Pace, torch_threads, tune  # noqa: PLC0415 - torch

    with torch_threads(threads):
        return tune(
            student,
            teaching,
            fit,
            error,
            pace=Pace(seconds=min(60 * bench.options.recover_minutes, bench.clock.left())),
            seed=bench.options.seed,
            progress=bench.progress,
        )


def _elements(model: ir.Model, names: Sequence[str]) -> int:
    held = (model.graph.initializers[name].const_value for name in names)
    return sum(tensor.size for tensor in held if tensor is not None)


def _like(value: ir.Value, array: Array) -> ir.TensorProtocol:
    """Return new numbers that are saved as the old ones were, sparse ones too."""
    tensor = ir.tensor(array, name=value.name)
    if value.const_value is not None:
        tensor.meta.update(value.const_value.meta)
    return tensor


def _hidden(teacher: ir.Model, model: ir.Model, names: Sequence[str]) -> list[str]:
    """Return the values that tuned weights make and that the teacher has under the same name."""
    known = {o.name for node in teacher.graph for o in node.outputs}
    weights = {model.graph.initializers[name] for name in names}
    return [
        o.name or ""
        for node in model.graph
        if weights & set(node.inputs)
        for o in node.outputs
        if o.name in known
    ]


def _same(a: ir.TensorProtocol | None, b: ir.TensorProtocol) -> bool:
    if a is b:
        return True
    return a is not None and a.shape == b.shape and bool(np.array_equal(a.numpy(), b.numpy()))


def _told(stage: LossyStage, report: RecoveryReport, looks: int | None = None) -> LossyStage:
    looks = stage.report.final_evaluations if looks is None else looks
    return replace(stage, report=replace(stage.report, recovery=report, final_evaluations=looks))
