"""The bench a model lies on while it is worked at: samples, shapes, target, clock."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.inputs import open_source, samples_for
from structopt_onnx.linalg.workers import Workers
from structopt_onnx.model.encoding import serialized_size
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.operators import operator_counts
from structopt_onnx.report.record import Size
from structopt_onnx.rewriting.cost import Cost, graph_cost
from structopt_onnx.rewriting.gates import Deny, Fuel, Gate, MustPay, NameFilter
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.passes import Cleanup, Pass, Step
from structopt_onnx.rewriting.target import TARGETS, Target
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.machine import usable_cores
from structopt_onnx.runtime.memory import return_freed
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor

    import onnx_ir as ir

    from structopt_onnx.api.metric import TaskMetric
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source


# Made-up samples: enough to see a wrong rewrite, and enough to split in three parts.
_SYNTHETIC = 8
_JUDGED_BY_SYNTHETIC = 40
# Each holds a weight and its moments in float64.
_MOST_WORKERS = 4
# For moments of activations; half of the weights' bytes where that is more, for fewer passes.
_STATISTICS_BYTES = 256 * 2**20


@dataclass
class Clock:
    """Wall time per stage, and what is left of the user's limit."""

    limit: float | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage, and give back the memory that it freed."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
            return_freed()

    def left(self) -> float:
        """Return the seconds that are left of the user's limit; infinity without one."""
        passed = time.monotonic() - self.started
        return math.inf if self.limit is None else max(0.0, self.limit - passed)

    def over(self) -> bool:
        """Whether the user's time limit has passed."""
        return self.limit is not None and time.monotonic() - self.started > self.limit


@dataclass(frozen=True)
class Bench:
    """Everything the stages of a run share.

    Parameters
    ----------
    name
        Display name of the source.
    model
        The model as loaded; never edited, stages work on clones.
    reference
        The original for sessions: its file, or its bytes.
    samples
        The user's samples, or made-up ones.
    shapes
        Concrete shapes of one run, by value name.
    options, target, progress, clock
        As their names say.
    metric
        The user's task metric.
    workers
        Who does the linear algebra.
    """

    name: str
    model: ir.Model
    reference: Path | bytes
    samples: Samples
    shapes: dict[str, tuple[int, ...]]
    options: OptimizeOptions
    target: Target
    progress: Callable[[str], None]
    clock: Clock
    metric: TaskMetric | None = None
    workers: Workers = field(default_factory=Workers)

    @property
    def exact_steps(self) -> tuple[Step, ...]:
        """Return the steps that hold for every input, without those that run last."""
        return tuple(
            step
            for step in self.options.steps()
            if step.exactness is not Exactness.LOSSY and not _encodes(step)
        )

    @property
    def encoding_steps(self) -> tuple[Step, ...]:
        """Return the steps that others would undo; they run last."""
        return tuple(step for step in self.options.steps() if _encodes(step))

    @property
    def encodes(self) -> bool:
        """Return whether weights with zeros are stored encoded in the end."""
        return any(getattr(step, "sparse_format", "none") != "none" for step in self.encoding_steps)

    @property
    def promise(self) -> Exactness:
        """Return what a file without lossy rewrites is held to."""
        steps = (*self.exact_steps, *self.encoding_steps)
        return Exactness.weakest(step.exactness for step in steps)

    @property
    def lossy_steps(self) -> tuple[Pass, ...]:
        """Return the passes that need an error budget and can lower what is minimized."""
        return tuple(
            step
            for step in self.options.steps()
            if step.exactness is Exactness.LOSSY
            and not isinstance(step, Cleanup)
            and self.options.objective in step.lowers
        )

    @property
    def statistics_bytes(self) -> int:
        """Return the memory that moments of activations may take at once."""
        given = self.options.max_memory
        if given is not None:
            return given
        return max(_STATISTICS_BYTES, self.cost(self.model, self.shapes).bytes // 2)

    @property
    def blind(self) -> bool:
        """Whether nothing may be fitted or judged: the samples are made up and not allowed."""
        return self.samples.synthetic and not self.options.allow_synthetic

    def manager(self, deny: frozenset[str] = frozenset(), fuel: int | None = None) -> PassManager:
        """Return a manager with the user's gates.

        Parameters
        ----------
        deny
            Names of steps that were rolled back.
        fuel
            Number of patches it may apply; None is no limit.
        """
        options = self.options
        gates: list[Gate] = [
            NameFilter(options.only, options.skip),
            Deny(deny),
            MustPay(self.target, options.objective, self.encodes),
            Fuel(fuel),
        ]
        return PassManager(
            self.target, gates, self.shapes, workers=self.workers, progress=self.progress
        )

    def cost(self, model: ir.Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Cost:
        """Return the static cost of a variant on one sample, with predicted seconds.

        Parameters
        ----------
        model
            The variant.
        shapes
            Its shapes on the first sample, where they are known; it is run once where not.
        """
        if shapes is None:
            shapes = observed_shapes(model, self.samples[0], libraries=self.options.libraries)
        cost = graph_cost(model, Facts(model, shapes=shapes))
        return replace(cost, seconds=self.target.seconds(cost))

    def planned_cost(self, model: ir.Model) -> Cost:
        """Return `cost` of a plan's model, with weights as they will be stored in the end."""
        cost = self.cost(model)
        if self.encodes:
            cost = replace(cost, bytes=graph_cost(model, Facts(model), encoded=True).bytes)
        return cost

    def size(
        self,
        model: ir.Model,
        stored: Path | bytes | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Size:
        """Return the cost of a variant and the size of its file, or what that would be."""
        cost, operators = self.cost(model, shapes), operator_counts(model)
        if isinstance(stored, Path):
            return Size(cost, model_file_bytes(stored), operators)
        return Size(cost, serialized_size(model) if stored is None else len(stored), operators)

    def session(self, model: Path | bytes | ir.Model, *, optimize: bool = True) -> Session:
        """Open a model the way this run does."""
        options = self.options
        return Session(
            model, optimize=optimize, threads=options.threads, libraries=options.libraries
        )


def _encodes(step: Step) -> bool:
    return isinstance(step, Pass) and step.encodes


def prepare(
    source: Source,
    options: OptimizeOptions,
    calibration: Any | None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    progress: Callable[[str], None],
    executor: Executor | None = None,
) -> Bench:
    """Load a model and its samples, and run it once.

    Raises
    ------
    ModelError
        When the model can't be read or run.
    DataError
        When the calibration data does not fit it.
    UsageError
        When the metric can't be imported.
    """
    metric = options.task_metric()
    clock = Clock(options.time_limit)
    libraries = options.libraries
    with clock.stage("load"):
        progress("load")
        opened = open_source(source)
    with clock.stage("samples"):
        progress("samples")
        samples = samples_for(
            opened,
            calibration,
            seed=options.seed,
            threads=options.threads,
            libraries=libraries,
            count=_JUDGED_BY_SYNTHETIC if options.allow_synthetic else _SYNTHETIC,
            unpad=True,
        )
        shapes = observed_shapes(opened.model, samples[0], libraries=libraries)
    target = TARGETS[options.target]
    return Bench(
        opened.name,
        opened.model,
        opened.stored,
        samples,
        shapes,
        options,
        target,
        progress,
        clock,
        metric,
        Workers(min(usable_cores(), _MOST_WORKERS), executor),
    )
