"""What a run on a provider proves: where the nodes were, and whether the values are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.runtime.providers.status import Kind, Status
from structopt_onnx.validation.limits import Limits
from structopt_onnx.validation.metrics import OutputComparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.runtime.providers.ran import Ran
    from structopt_onnx.validation.metrics import OutputMetrics


@dataclass(frozen=True)
class Judged:
    """The verdict on a run.

    Attributes
    ----------
    status
        What may be said of it.
    max_abs, relative_error
        Largest difference from the CPU's outputs, and relative L2 error of the worst output;
        None where nothing was compared here.
    """

    status: Status
    max_abs: float | None = None
    relative_error: float | None = None


def judge(ran: Ran, expected: Sequence[Mapping[str, Any]], tolerance: float) -> Judged:
    """Say what a run proves.

    Parameters
    ----------
    ran
        What came back.
    expected
        The CPU's outputs, per feed.
    tolerance
        Largest relative L2 error of an output (for integers: share of samples that differ) with
        which the provider still computes the model.

    Returns
    -------
    Judged
        ``unavailable`` where the provider took no node, gave other values, or gave nothing that
        could be compared.
    """
    place = ran.placement
    if place.on_provider == 0:
        return Judged(_no(f"it took none of {place.nodes} nodes"))
    metrics = () if ran.checked else _compared(ran.outputs, expected)
    limits = Limits.of(tolerance, Exactness.LOSSY, [m.name for m in metrics])
    wrong = [line for output in metrics for line in limits.failures(output)]
    nothing = not ran.checked and not any(output.compared for output in metrics)
    largest = max((m.max_abs for m in metrics if m.max_abs is not None), default=None)
    error = max((m.error for m in metrics), default=None)
    if wrong or nothing:
        return Judged(_no(f"wrong values: {wrong[0]}" if wrong else "no value to compare"))
    kind: Kind = "executed" if place.on_provider == place.nodes else "partial"
    status = Status("simulated" if ran.simulated else kind, place.on_provider, place.nodes)
    return Judged(status, largest, error)


def _no(reason: str) -> Status:
    return Status("unavailable", reason=reason)


def _compared(
    outputs: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> tuple[OutputMetrics, ...]:
    pairs = {name: OutputComparison(name) for name in expected[0]}
    for found, wanted in zip(outputs, expected, strict=True):
        for name, pair in pairs.items():
            pair.update(wanted[name], found.get(name))
    return tuple(pair.result() for pair in pairs.values())
