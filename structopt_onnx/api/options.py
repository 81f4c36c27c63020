"""The options of one run of `optimize`, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from structopt_onnx.api.keep import Keep
from structopt_onnx.api.metric import TaskMetric
from structopt_onnx.errors import UsageError
from structopt_onnx.passes import catalogue
from structopt_onnx.passes.sparsity.encode_sparse import FORMATS
from structopt_onnx.rewriting.cost import Objective
from structopt_onnx.rewriting.pipeline import parse_pipeline, whole_pipeline
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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
        integers and booleans the share of samples that differ). None sets no limit of this kind;
        without `metric` and `keep` exact passes only are run.
    metric, max_drop
        A task metric, higher is better, and how much of it may be lost: the original's value less
        the result's, both on the samples judged by. ``agreement`` is the share of decisions that
        are the original's and needs no labels (see `DecisionAgreement`), ``agreement:OUTPUT`` the
        same of one output; ``module:function``, ``file.py:function`` or a function is the user's
        own, called as ``function(run, samples)`` (see `TaskMetric`).
    keep
        Share of the whole original's cost to come down to at the least error, such as
        ``{"parameters": 0.5}`` or ``"macs=0.7"``; `max_error` and `max_drop` are limits beside it.
    refit
        Whether the last factors of the plan are fitted to their own inputs in the compressed
        model, where that lowers the error on the probe part.
    recover, recover_minutes
        Whether the weights that lossy rewrites touched are fine-tuned to the original's outputs
        on the part of the samples that is fitted to, and for how long at most. Needs torch (extra
        ``export``). Deterministic by the seed, unless the time cuts it short.
    minimize
        What lossy rewrites must lower: time, bytes, macs or parameters; with `keep`, what that
        names.
    tolerate
        Share by which measured time may rise when something else is minimized.
    sparse_format
        How weights with zeros are stored: ``auto`` for the smallest encoding, ``initializer``,
        ``bitmask`` or ``delta``, ``none`` for dense, except what came encoded. None is ``auto``
        where bytes are minimized, else ``none``.
    target
        Where the model will run: ``cpu``, or ``nnapi``, ``coreml`` or ``qnn``, which are known by
        the operators that they list. Validation and measurement use the CPU whatever it is.
    only, skip
        Globs over node names.
    seed
        For synthetic inputs and the order of measurements.
    threads
        Of the sessions used for validation and reported beside the benchmark's verdict: how many
        the model will have where it runs. Factorizing, by four workers at most, and recovery
        take the cores that this process may use; ``taskset`` and its like limit them.
    benchmark, benchmark_seconds
        Whether to measure, and for how long.
    cost_seconds
        For timing what lossy rewrites touch, when time is minimized; 0 takes the static model
        alone. Times are kept on disk, so that later runs need hardly any.
    time_limit
        Seconds after which no more probes and plans are tried; what is found by then is kept.
    max_memory
        Bytes that moments of activations may take at once; less takes more passes over the samples.
        None is 256 MiB, or half of the weights' bytes where that is more.
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
    metric: str | Callable[..., Any] | None = None
    max_drop: float | None = None
    keep: str | Mapping[str, float] | None = None
    refit: bool = True
    recover: bool = False
    recover_minutes: float = 10.0
    minimize: Objective = "time"
    tolerate: float = 0.0
    sparse_format: str | None = None
    target: str = "cpu"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 1
    benchmark: bool = True
    benchmark_seconds: float = 20.0
    cost_seconds: float = 20.0
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
        self._check_metric()
        if self.minimize not in get_args(Objective):
            raise UsageError(
                f"minimize is one of {', '.join(get_args(Objective))}, not '{self.minimize}'"
            )
        if self.sparse_format not in (None, *FORMATS):
            raise UsageError(
                f"sparse_format is one of {', '.join(FORMATS)}, not '{self.sparse_format}'"
            )
        if self.target not in TARGETS:
            raise UsageError(f"target is one of {', '.join(TARGETS)}, not '{self.target}'")
        for name, least in (
            ("threads", 1),
            ("seed", 0),
            ("tolerate", 0),
            ("benchmark_seconds", 0),
            ("cost_seconds", 0),
            ("recover_minutes", 0),
        ):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is at least {least}, not {getattr(self, name)}")
        for name in ("time_limit", "max_memory", "fuel"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} is at least 0, not {value}")
        if self.kept is not None and self.minimize not in ("time", self.kept.objective):
            raise UsageError(
                f"keep says that {self.kept.objective} must fall; leave minimize out or give the "
                "same"
            )
        self.steps()

    def _check_metric(self) -> None:
        if (self.metric is None) != (self.max_drop is None):
            given, missing = ("metric", "max_drop")[:: 1 if self.max_drop is None else -1]
            raise UsageError(f"{given} needs {missing} beside it")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(f"max_drop is a number from 0 up, such as 0.005, not {self.max_drop}")
        if self.metric is not None and not (isinstance(self.metric, str) or callable(self.metric)):
            raise UsageError(f"metric is a function or its name, not {self.metric!r}")

    @property
    def lossy(self) -> bool:
        """Whether anything but exact passes is asked for."""
        return not (self.max_error is None and self.metric is None and self.keep is None)

    def loosened(self, factor: float) -> OptimizeOptions:
        """Return the options with limits on errors and drops that are larger by a factor."""
        error, drop = (None if v is None else factor * v for v in (self.max_error, self.max_drop))
        return replace(self, max_error=error, max_drop=drop)

    @property
    def kept(self) -> Keep | None:
        """Return the cost to come down to."""
        return None if self.keep is None else Keep.of(self.keep)

    @property
    def objective(self) -> Objective:
        """Return what lossy rewrites must lower."""
        return self.minimize if self.kept is None else self.kept.objective

    def task_metric(self) -> TaskMetric | None:
        """Import the task metric; errors as of `TaskMetric.load`."""
        return None if self.metric is None else TaskMetric.load(self.metric)

    def record(self) -> dict[str, Any]:
        """Return the options as plain data."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        metric = None if self.metric is None or isinstance(self.metric, str) else self.task_metric()
        return {
            **given,
            "metric": self.metric if metric is None else metric.name,
            "keep": None if self.kept is None else str(self.kept),
            "libraries": [str(path) for path in self.libraries],
        }

    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the pipeline; those that have a target are given the run's."""
        known, shared = catalogue(), {"target": self.target}
        if self.sparse_format is not None:
            shared["sparse_format"] = self.sparse_format
        elif self.passes is None:
            shared["sparse_format"] = "auto" if self.objective == "bytes" else "none"
        if self.passes is not None:
            return parse_pipeline(self.passes, known, shared)
        return whole_pipeline(known, shared)
