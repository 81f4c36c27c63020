"""Handing over: the boldest candidate that validates as written and is not slower."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx.api.judge import Judge
from structopt_onnx.api.slimming import SLIMMING
from structopt_onnx.api.speed import compare, is_slower, told
from structopt_onnx.errors import ModelError, ValidationFailed
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.saving import save
from structopt_onnx.runtime.coverage import coverage
from structopt_onnx.validation.models import validate_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.judge import Measured
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.report.record import Size
    from structopt_onnx.rewriting.manager import PassManager
    from structopt_onnx.runtime.comparison import Comparison
    from structopt_onnx.validation.models import ModelValidation


@dataclass(frozen=True)
class Candidate:
    """A model that could be handed over, with the record of how it came about.

    Parameters
    ----------
    model, manager
        The model and the manager that made it.
    what
        What would be rolled back with it.
    lossy
        Whether it is held to the error budget instead of to rounding.
    least
        Whether there is nothing less to hand over, so that it may be larger than the original.
    rolled_back
        Steps left out of it, with the reason.
    faster
        Makes a candidate without what costs time, where it turns out that something does.
    """

    model: ir.Model
    manager: PassManager
    what: str
    lossy: bool = False
    least: bool = False
    rolled_back: tuple[str, ...] = ()
    faster: Callable[[], Candidate | None] | None = None


# Bytes that pads, sizes and axes of new nodes may take, which are initializers as weights are.
_OPERANDS = 1024
# Predicted times are sums in another order.
_ROUNDING = 1e-9


class _RejectedError(Exception):
    """A candidate that is not kept, and why."""


class _SlowerError(_RejectedError):
    """A candidate that is significantly slower than the original."""


class _TooLargeError(_RejectedError):
    """A candidate whose file is larger than the original's."""


@dataclass
class Delivery:
    """The candidate kept, where it was written, and what proved it."""

    kept: Candidate
    path: Path | None
    size: Size | None = None
    validation: ModelValidation | None = None
    comparison: Comparison | None = None
    measured: Measured | None = None
    rolled_back: tuple[str, ...] = ()
    unmeasured: str = ""
    judged: int = 0
    left_out: tuple[str, ...] = ()


def deliver(
    bench: Bench,
    candidates: Iterable[Candidate],
    judged: Samples,
    output: str | Path | None,
    *,
    most_bytes: int,
) -> Delivery:
    """Write the boldest candidate that validates, is not larger and not slower.

    For a target that is not the CPU, the CPU's time is reported and decides nothing, and a file
    may be larger when more of it can run on the target. Where time is minimized and predicted to
    fall, nodes and attributes may take more bytes than before, initializers a kilobyte at most.

    Parameters
    ----------
    bench
        The run.
    candidates
        From the boldest to the least; the next is made when one was not kept.
    judged
        The samples to validate and measure on.
    output
        Where to write; None writes nothing that stays.
    most_bytes
        Size of the original.

    Raises
    ------
    ValidationFailed
        When not even the last candidate survives being written.
    """
    rolled_back: list[str] = []
    remedy = ""
    looks = 0
    rest = iter(candidates)
    while (candidate := next(rest, None)) is not None:
        delivery = Delivery(candidate, None if output is None else Path(output), judged=looks)
        try:
            _write_small(bench, delivery, judged, None if candidate.least else most_bytes)
        except _SlowerError as slower:
            rolled_back.append(f"{candidate.what}: {slower}")
            remedy = remedy or _remedy(bench, candidate)
            faster = None if candidate.faster is None else candidate.faster()
            if faster is not None:
                rest = chain([faster], rest)
        except _RejectedError as rejected:
            rolled_back.append(f"{candidate.what}: {rejected}")
        else:
            delivery.rolled_back = (*candidate.rolled_back, *rolled_back)
            return delivery
        looks = delivery.judged
    raise ValidationFailed(f"{bench.name}: nothing can be saved: {'; '.join(rolled_back)}{remedy}")


def _remedy(bench: Bench, candidate: Candidate) -> str:
    """Say how to have what is slower but comes down to the cost asked for, unless that is time."""
    keep = bench.options.kept
    if not candidate.lossy or keep is None or keep.objective == "time":
        return ""
    return f"; {keep} was asked for, not time: --no-benchmark hands it over all the same"


def _write_small(bench: Bench, delivery: Delivery, judged: Samples, most_bytes: int | None) -> None:
    """Write a candidate, without what is worth less than the promise that nothing grows."""
    with suppress(_TooLargeError):
        return _write(bench, delivery, judged, most_bytes)
    buys_time = _buys_time(bench, delivery)
    delivery.kept = replace(delivery.kept, model=delivery.kept.model.clone())
    for what, forget in SLIMMING.items():
        if forget(delivery.kept.model, bench.model):
            delivery.left_out = (*delivery.left_out, what)
            with suppress(_TooLargeError):
                return _write(bench, delivery, judged, most_bytes)
    return _write(bench, delivery, judged, None if buys_time else most_bytes)


def _buys_time(bench: Bench, delivery: Delivery) -> bool:
    """Whether less time is predicted for a file that is larger by its graph alone."""
    if delivery.size is None or bench.options.objective != "time":
        return False
    before, after = bench.cost(bench.model, bench.shapes), delivery.size.cost
    return after.bytes <= before.bytes + _OPERANDS and after.of("time") < before.of("time")


def _write(bench: Bench, delivery: Delivery, judged: Samples, most_bytes: int | None) -> None:
    model = delivery.kept.model

    def check(path: Path) -> None:
        delivery.size = bench.size(model, path)
        size = delivery.size.file_bytes
        # A data file of its own, when asked for, takes a few bytes more for every weight.
        too_large = most_bytes is not None and size > most_bytes
        if too_large and not bench.options.external_data and not _reaches_further(bench, model):
            raise _TooLargeError(f"larger than the original: {size:,} bytes of {most_bytes:,}")
        _check(bench, delivery, path, judged)

    if delivery.path is not None:
        save(model, delivery.path, external_data=bench.options.external_data, check=check)
        return
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
        save(model, Path(folder) / "candidate.onnx", check=check)


def _check(bench: Bench, delivery: Delivery, path: Path, judged: Samples) -> None:
    """Validate the file as written and measure it; raises `_RejectedError`."""
    options, candidate = bench.options, delivery.kept
    with bench.clock.stage("validate"):
        bench.progress("validate")
        validation = validate_models(
            bench.reference,
            path,
            judged,
            max_error=options.max_error if candidate.lossy else None,
            unlimited=candidate.lossy and options.max_error is None,
            exactness=Exactness.LOSSY if candidate.lossy else bench.promise,
            synthetic=judged.synthetic,
            threads=options.threads,
            libraries=options.libraries,
        )
        delivery.judged += candidate.lossy
        if not validation.passed:
            raise _RejectedError(validation.failures[0])
        if candidate.lossy or delivery.path is not None:
            _check_cost(bench, delivery)
        if candidate.lossy and bench.metric is not None:
            delivery.measured = Judge(bench, judged).measure(path)
            if not delivery.measured.within(options):
                raise _RejectedError(delivery.measured.excess(options))
    delivery.validation = validation
    if not options.benchmark or not candidate.manager.record.applied:
        return
    with bench.clock.stage("benchmark"):
        bench.progress("benchmark")
        try:
            comparison = compare(bench, path, judged)
        except ModelError as error:
            # What validated is not lost because the measuring process died.
            delivery.unmeasured = str(error)
            if not _predicted_to_pay(bench, delivery):
                raise _RejectedError(f"not measured ({error}), no cost predicted to fall") from None
            return
    delivery.comparison = comparison
    if comparison.verdict == "not measured" and not _predicted_to_pay(bench, delivery):
        raise _RejectedError(
            f"not measured ({comparison.reason}), and no cost is predicted to fall"
        )
    if is_slower(bench, comparison):
        raise _SlowerError(f"significantly {told(comparison, judged)}")


def _check_cost(bench: Bench, delivery: Delivery) -> None:
    """Hold the file to the cost to come down to: what costs more is not what was asked for."""
    keep, size = bench.options.kept, delivery.size
    if keep is not None and size is not None:
        whole = bench.cost(bench.model, bench.shapes).of(keep.objective)
        share = size.cost.of(keep.objective) / whole
        if share > keep.share * (1 + _ROUNDING):
            raise _RejectedError(f"{keep.objective}={share:.4g} is left, more than {keep}")


def _reaches_further(bench: Bench, model: ir.Model) -> bool:
    """Whether more of a candidate than of the original is predicted to run on the target."""
    before, after = coverage(bench.model, bench.target), coverage(model, bench.target)
    return before is not None and after is not None and after.share > before.share


def _predicted_to_pay(bench: Bench, delivery: Delivery) -> bool:
    """Whether the candidate's static cost is below the original's, or its coverage above."""
    if delivery.size is None:
        return False
    if _reaches_further(bench, delivery.kept.model):
        return True
    before, after = bench.cost(bench.model, bench.shapes), delivery.size.cost
    objective = bench.options.objective
    return (after.of(objective), after.nodes) < (before.of(objective), before.nodes)
