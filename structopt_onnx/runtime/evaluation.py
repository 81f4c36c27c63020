"""From the measuring process's raw times to the record: timings, ratio, control, verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.runtime.comparison import BUSY_PERCENT, Clock, Comparison, Deployed, Timing
from structopt_onnx.runtime.replicates import replicate_of
from structopt_onnx.runtime.statistics import (
    control_spread,
    decide,
    median_log_ratio,
    ratio_interval,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Raw = dict[str, Any]
"""JSON of the measuring process: fields of `Samples`, or a probe's result."""

_CLOCK_FIELD: dict[Clock, str] = {"thread CPU time": "cpu_ms", "wall": "wall_ms"}


def probe_timing(probe: Raw | None, file_bytes: int, clock: Clock) -> Timing:
    """Give the timing that a model's own fresh process yields.

    Parameters
    ----------
    probe
        Its result; `None` if it took too long.
    file_bytes
        Size of the model.
    clock
        Which of the probe's times to take.
    """
    if probe is None:
        return Timing(None, None, None, 0, None, None, None, file_bytes)
    p50, p90, minimum = _percentiles(probe[_CLOCK_FIELD[clock]])
    return Timing(
        p50=p50,
        p90=p90,
        minimum=minimum,
        n=len(probe["cpu_ms"]),
        session_creation_ms=probe["creation_ms"],
        first_run_ms=probe["first_run_ms"],
        peak_rss_bytes=probe["peak_rss_bytes"],
        file_bytes=file_bytes,
        device_bytes=probe.get("device_bytes"),
    )


def evaluate(base: Comparison, samples: Raw, deployed: Deployed | None) -> Comparison:
    """Fill in what the samples prove.

    Parameters
    ----------
    base
        The record as it is without the samples, timings from the probes.
    samples
        Fields of `Samples`; an arm beyond the models is the control.
    deployed
        Wall clock at the deployed thread count; None where the time did not suffice for it.
    """
    times = samples[_CLOCK_FIELD[base.clock]]
    models = 1 if base.b is None else 2
    control = [median_log_ratio(arms[0], arms[-1]) for arms in times if len(arms) > models]
    spread = control_spread(control)
    common = replace(
        base,
        a=_sample_timing(base.a, samples, times, 0),
        control_ratio=math.exp(float(np.median(control))),
        control_spread=spread,
        deployed=deployed,
        replicates=len(times),
        pairs=min(len(arms[0]) for arms in times),
        replicate_times=tuple(replicate_of(arms, models) for arms in times),
    )
    if base.b is None:
        return replace(common, reason="")
    interval = ratio_interval([median_log_ratio(arms[0], arms[1]) for arms in times])
    verdict, reason = decide(interval, spread)
    return replace(
        common,
        b=_sample_timing(base.b, samples, times, 1),
        ratio=interval.ratio,
        low=interval.low,
        high=interval.high,
        verdict=verdict,
        reason=reason,
    )


def evaluate_deployed(
    wall_ms: Sequence[Sequence[Sequence[float]]],
    threads: int,
    pressures: Sequence[float | None],
    *,
    paired: bool,
) -> Deployed:
    """Sum up wall-clock times per replicate, arm and pair.

    Parameters
    ----------
    wall_ms
        Milliseconds per run.
    threads
        Threads inside one operator.
    pressures
        CPU pressure before and after, in percent.
    paired
        Whether there is a model B, in arm 1.
    """
    known = [pressure for pressure in pressures if pressure is not None]
    pressure = max(known) if known else None
    ratio = None
    if paired:
        logs = [median_log_ratio(arms[0], arms[1]) for arms in wall_ms]
        ratio = math.exp(float(np.median(logs)))
    return Deployed(
        threads=threads,
        ratio=ratio,
        p50_a=_percentiles([ms for arms in wall_ms for ms in arms[0]])[0],
        p50_b=_percentiles([ms for arms in wall_ms for ms in arms[1]])[0] if paired else None,
        cpu_pressure=pressure,
        noisy=pressure is not None and pressure > BUSY_PERCENT,
    )


def _sample_timing(
    probed: Timing, samples: Raw, times: Sequence[Sequence[Sequence[float]]], slot: int
) -> Timing:
    every = [ms for arms in times for ms in arms[slot]]
    p50, p90, minimum = _percentiles(every)
    return replace(
        probed,
        p50=p50,
        p90=p90,
        minimum=minimum,
        n=len(every),
        session_creation_ms=float(np.median([row[slot] for row in samples["creation_ms"]])),
        first_run_ms=float(np.median([row[slot] for row in samples["first_run_ms"]])),
    )


def _percentiles(times: Sequence[float]) -> tuple[float, float, float]:
    p50, p90 = np.percentile(times, [50, 90])
    return float(p50), float(p90), float(min(times))
