"""What a user must or should know beside the figures of a run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from structopt_onnx.api.replay_record import RECORD_KEY, decode
from structopt_onnx.api.stored_tensors import stored_sparse
from structopt_onnx.errors import UsageError
from structopt_onnx.model.scope import scopes
from structopt_onnx.report.figures import plural
from structopt_onnx.rewriting.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.deliver import Delivery
    from structopt_onnx.report.plan_record import PlanReport
    from structopt_onnx.report.record import Size

# Fewer observations per dimension make covariances look emptier than they are.
_ENOUGH_SUPPORT = 4.0


def warnings(bench: Bench, plan: PlanReport | None, delivery: Delivery) -> tuple[str, ...]:
    """Return what puts the verdict in question."""
    found = [*_about_samples(bench, plan, delivery), *_unmatched(bench)]
    text = bench.model.metadata_props.get(RECORD_KEY)
    if (
        bench.options.lossy
        and bench.options.max_error != 0
        and text is not None
        and _was_lossy(text)
    ):
        found.append(
            "the model carries the record of an earlier lossy run: its error adds to this one's"
        )
    if bench.clock.over():
        found.append("the time limit was reached; what was found by then was kept")
    return tuple(found)


def _about_samples(bench: Bench, plan: PlanReport | None, delivery: Delivery) -> Iterator[str]:
    if plan is None:
        return
    if bench.blind:
        yield (
            "no calibration data: only cuts of what is numerically zero were considered; "
            "give --calibration, or --allow-synthetic to judge by made-up inputs"
        )
    elif bench.samples.synthetic:
        yield "errors were measured on made-up inputs"
    judged = () if delivery.validation is None or plan.budget is None else (delivery.validation,)
    for output in (output for validation in judged for output in validation.exact.outputs):
        if output.relative_l2 is None and output.samples * (plan.budget or 0) < 1:
            yield (
                f"output '{output.name}' is judged by the share of samples that differ: "
                f"{output.samples} samples can't show a share as small as {plan.budget:g}"
            )
    metric = plan.metric
    for name, _, number in metric.decisions if metric is not None else ():
        if metric is not None and 0 < metric.max_drop < 1 / number:
            yield (
                f"{number} decisions at output '{name}' can't show a drop as small as "
                f"{metric.max_drop:g}: give more samples"
            )
    thin = [site for site in plan.sites if 0 < site.support < _ENOUGH_SUPPORT]
    if thin:
        worst = min(thin, key=lambda site: site.support)
        yield (
            f"few samples for {len(thin)} of {len(plan.sites)} sites: {worst.support:.2g} "
            f"observations per dimension at {'+'.join(worst.weights)}, 4 or more are wanted"
        )


def _unmatched(bench: Bench) -> Iterator[str]:
    options = bench.options
    if not options.only and not options.skip:
        return
    names = {
        name
        for scope in scopes(bench.model)
        for name in (*(node.name or "" for node in scope.graph), *scope.graph.initializers)
    }
    for flag, patterns in (("--only", options.only), ("--skip", options.skip)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                yield f"{flag} {pattern} matches no node and no weight"


def _was_lossy(text: str) -> bool:
    try:
        return bool(decode(text).lossy)
    except UsageError:
        return False


def notes(
    bench: Bench, plan: PlanReport | None, delivery: Delivery, before: Size
) -> tuple[str, ...]:
    """Return anything else the user should know."""
    found = [*_left_out(bench), *_written_smaller(delivery, before)]
    if plan is not None and not plan.sites:
        found.append("no lossy pass has a site to offer on this model")
    if delivery.left_out:
        found.append(f"left out to keep the file small: {', '.join(delivery.left_out)}")
    verdict = delivery.comparison.verdict if delivery.comparison is not None else None
    if verdict == "not measured" or delivery.unmeasured:
        why = f" ({delivery.unmeasured})" if delivery.unmeasured else ""
        found.append(f"not measured{why}: kept because its predicted cost fell")
    if verdict == "no difference shown" and bench.options.objective == "time":
        found.append("no difference in time was shown: kept for its predicted cost and its size")
    return tuple(found)


def _written_smaller(delivery: Delivery, before: Size) -> Iterator[str]:
    """Say what makes a file smaller in which nothing was changed, where that is known."""
    size, kept = delivery.size, delivery.kept
    if kept.manager.record.applied or size is None or size.file_bytes >= before.file_bytes:
        return
    if sparse := stored_sparse(kept.model):
        yield (
            "the file was only written anew, the indices of "
            f"{plural(sparse, 'sparse tensor')} in as few bytes as they need"
        )


def _left_out(bench: Bench) -> Iterator[str]:
    """Say which passes that the user named can't lower what is minimized."""
    options = bench.options
    for step in options.steps() if options.passes is not None and options.lossy else ():
        if isinstance(step, Pass) and options.objective not in step.lowers:
            lowered = " and ".join(sorted(step.lowers))
            yield f"{step.name} was left out: it lowers {lowered}, not {options.objective}"
