"""The record of a measurement: everything a report needs, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from structopt_onnx.runtime.machine import Machine
    from structopt_onnx.runtime.measuring import Control
    from structopt_onnx.runtime.replicates import Replicate
    from structopt_onnx.runtime.statistics import Verdict

Clock: TypeAlias = Literal["thread CPU time", "wall"]

# From here on three digits would be written with an exponent.
_WHOLE = 999.5

BUSY_PERCENT = 20.0
"""CPU pressure from which wall-clock times are called noisy."""


@dataclass(frozen=True)
class Timing:
    """What was measured of one model; `None` where it was not.

    Attributes
    ----------
    p50, p90, minimum
        Milliseconds per run on the comparison's clock, one thread.
    n
        Samples they come from.
    session_creation_ms, first_run_ms
        Wall clock, median over the sessions created.
    peak_rss_bytes
        Peak resident memory of a fresh process, interpreter included, that loads the model and
        runs it once.
    file_bytes
        The model file and its external data.
    device_bytes
        What the same process took on a GPU, other processes' changes meanwhile included.
    """

    p50: float | None
    p90: float | None
    minimum: float | None
    n: int
    session_creation_ms: float | None
    first_run_ms: float | None
    peak_rss_bytes: int | None
    file_bytes: int
    device_bytes: int | None = None


@dataclass(frozen=True)
class Deployed:
    """Wall clock at the thread count of the deployment: what users feel, not what decides.

    Attributes
    ----------
    threads
        Threads inside one operator.
    ratio
        Median of tB / tA; `None` with one model.
    p50_a, p50_b
        Milliseconds per run.
    cpu_pressure
        The higher of the pressures before and after, in percent; `None` where unknown.
    noisy
        Whether the machine was too busy for these numbers.
    """

    threads: int
    ratio: float | None
    p50_a: float
    p50_b: float | None
    cpu_pressure: float | None
    noisy: bool


@dataclass(frozen=True)
class Comparison:
    """Two models against each other, or one by itself.

    Attributes
    ----------
    a, b
        The models' timings.
    ratio, low, high
        tB / tA and its 95 % t-interval over replicates.
    control_ratio, control_spread
        The same model A against itself in the same process: ratio and absolute median log ratio.
    control
        Whether the control's session is created anew in each replicate, or is that of the
        replicate before because another one would not have fitted into the time, or there is none.
    verdict, reason
        What the numbers prove and why. With one model nothing: "not measured" and no reason.
    clock
        Of the verdict and the timings.
    deployed
        Wall clock at the deployed thread count; None where the time did not suffice for it.
    replicates, pairs
        Replicates, and samples of each model in the replicate that had fewest.
    feeds
        Different inputs that the pairs took in turns.
    shapes
        Inputs of the first feed, such as ``x float32[1,3,32,32]``.
    seconds
        What all of it took.
    provider
        The execution provider.
    machine
        Where it was measured.
    needed_seconds
        With how many seconds, about, it would have been measured; None where it was, or where
        that is not known.
    replicate_times
        The times that all of this rests on; empty where nothing was compared.
    """

    a: Timing
    b: Timing | None
    ratio: float | None
    low: float | None
    high: float | None
    control_ratio: float | None
    control_spread: float | None
    control: Control
    verdict: Verdict
    reason: str
    clock: Clock
    deployed: Deployed | None
    replicates: int
    pairs: int
    feeds: int
    seconds: float
    provider: str
    machine: Machine
    shapes: tuple[str, ...] = ()
    needed_seconds: int | None = None
    replicate_times: tuple[Replicate, ...] = ()

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def summary(self) -> str:
        """Say it on one line."""
        times = _milliseconds(self.a.p50)
        if self.b is not None:
            times += f" -> {_milliseconds(self.b.p50)}"
        if self.b is None and not self.reason:
            return f"p50 {times}, p90 {_milliseconds(self.a.p90)} ({self.clock}, 1 thread)"
        if self.ratio is None or self.low is None or self.high is None:
            return f"{self.verdict} ({self.reason}); p50 {times}"
        interval = f"x{self.ratio:.3f} time [{self.low:.3f}, {self.high:.3f}]"
        control = "" if self.control_ratio is None else f", A/A x{self.control_ratio:.3f}"
        return (
            f"{self.verdict}: {interval}, p50 {times}{control} "
            f"({self.clock}, 1 thread, {self.replicates} replicates of {self.pairs} pairs)"
        )


def _milliseconds(value: float | None) -> str:
    return "?" if value is None else f"{three_digits(value)} ms"


def three_digits(value: float) -> str:
    """Write a time with three digits and without an exponent."""
    return f"{value:.3g}" if value < _WHOLE else f"{float(f'{value:.3g}'):,.0f}"
