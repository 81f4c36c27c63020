"""The options of one run of `optimize`, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from structopt_onnx.errors import UsageError
from structopt_onnx.passes import catalogue
from structopt_onnx.rewriting.cost import Objective
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from structopt_onnx.rewriting.passes import Step


@dataclass(frozen=True)
class OptimizeOptions:
    """What the user may set.

    Parameters
    ----------
    passes
        Pipeline text; None runs the whole catalogue.
    max_error
        Largest relative L2 error allowed per output, pooled over the samples judged by (for
        integers and booleans the share of samples that differ). None allows exact passes only.
    minimize
        What lossy rewrites must lower: time, bytes, macs or parameters.
    tolerate
        Share by which measured time may rise when something else is minimized.
    target
        Where the model will run.
    only, skip
        Globs over node names.
    seed
        For synthetic inputs and the order of measurements.
    threads
        Of the sessions used for validation and reported beside the benchmark's verdict.
    benchmark, benchmark_seconds
        Whether to measure, and for how long.
    time_limit
        Seconds after which no more probes and plans are tried; what is found by then is kept.
    max_memory
        Bytes that statistics may take.
    libraries
        Shared libraries with custom operators.
    allow_synthetic
        Let lossy passes be judged on made-up inputs when there is no calibration data.
    fuel
        Number of exact patches admitted; None is no limit.
    external_data
        Whether weights go to a file of their own; None decides by size.
    """

    passes: str | None = None
    max_error: float | None = None
    minimize: Objective = "time"
    tolerate: float = 0.0
    target: str = "cpu"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 1
    benchmark: bool = True
    benchmark_seconds: float = 20.0
    time_limit: float | None = None
    max_memory: int | None = None
    libraries: tuple[Path, ...] = ()
    allow_synthetic: bool = False
    fuel: int | None = None
    external_data: bool | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value outside its range."""
        if self.max_error is not None and not (
            math.isfinite(self.max_error) and self.max_error >= 0
        ):
            raise UsageError(f"max_error is a number from 0 up, such as 0.05, not {self.max_error}")
        if self.minimize not in get_args(Objective):
            raise UsageError(
                f"minimize is one of {', '.join(get_args(Objective))}, not '{self.minimize}'"
            )
        if self.target not in TARGETS:
            raise UsageError(f"target is one of {', '.join(TARGETS)}, not '{self.target}'")
        for name, least in (("threads", 1), ("tolerate", 0), ("benchmark_seconds", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is at least {least}, not {getattr(self, name)}")
        for name in ("time_limit", "max_memory", "fuel"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} is at least 0, not {value}")
        self.steps()

    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the pipeline."""
        known = catalogue()
        if self.passes is not None:
            return parse_pipeline(self.passes, known)
        return tuple(step() for step in known.values())
