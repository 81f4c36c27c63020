"""The bench a model lies on while it is worked at: samples, shapes, target, clock."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from structopt_onnx.calibration.samples import Samples, load_samples
from structopt_onnx.calibration.synthetic import synthetic_samples
from structopt_onnx.model.encoding import to_proto
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.loading import Source, load
from structopt_onnx.rewriting.gates import Deny, Fuel, Gate, MustPay, NameFilter
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.passes import Cleanup, Pass, Step
from structopt_onnx.rewriting.target import TARGETS, Target
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.api.options import OptimizeOptions


@dataclass
class Clock:
    """Wall time per stage, and what is left of the user's limit."""

    limit: float | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

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

    @property
    def exact_steps(self) -> tuple[Step, ...]:
        """Return the steps that hold for every input."""
        return tuple(s for s in self.options.steps() if s.exactness is not Exactness.LOSSY)

    @property
    def lossy_steps(self) -> tuple[Pass, ...]:
        """Return the passes that need an error budget."""
        return tuple(
            step
            for step in self.options.steps()
            if step.exactness is Exactness.LOSSY and not isinstance(step, Cleanup)
        )

    def manager(self, deny: frozenset[str] = frozenset(), fuel: int | None = None) -> PassManager:
        """Return a manager with the user's gates; `deny` names steps that were rolled back."""
        options = self.options
        limits = [limit for limit in (options.fuel, fuel) if limit is not None]
        gates: list[Gate] = [
            NameFilter(options.only, options.skip),
            Deny(deny),
            MustPay(self.target, options.minimize),
            Fuel(min(limits) if limits else None),
        ]
        return PassManager(self.target, gates, self.shapes, progress=self.progress)

    def session(self, model: Path | bytes | ir.Model, *, optimize: bool = True) -> Session:
        """Open a model the way this run does."""
        options = self.options
        return Session(
            model, optimize=optimize, threads=options.threads, libraries=options.libraries
        )


def prepare(
    source: Source,
    options: OptimizeOptions,
    calibration: Any | None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    progress: Callable[[str], None],
) -> Bench:
    """Load a model and its samples, and run it once.

    Raises
    ------
    ModelError
        When the model can't be read or run.
    DataError
        When the calibration data does not fit it.
    """
    clock = Clock(options.time_limit)
    with clock.stage("load"):
        progress("load")
        model = load(source)
        reference = _reference(source, model)
        session = Session(reference, threads=options.threads, libraries=options.libraries)
    with clock.stage("samples"):
        progress("samples")
        if calibration is None:
            samples = synthetic_samples(model, session.inputs, seed=options.seed, run=session.run)
        else:
            samples = load_samples(calibration, session.inputs, optional=session.overridable)
        del session
        shapes = observed_shapes(model, samples[0], libraries=options.libraries)
    name = str(model.meta.get("structopt_onnx.source", "model"))
    target = TARGETS[options.target]
    return Bench(name, model, reference, samples, shapes, options, target, progress, clock)


def _reference(source: Source, model: ir.Model) -> Path | bytes:
    if isinstance(source, (str, Path)):
        return Path(source)
    if isinstance(source, bytes):
        return source
    proto = source if isinstance(source, onnx.ModelProto) else to_proto(model)
    data: bytes = proto.SerializeToString()
    return data


def exactness_of(steps: Sequence[Step]) -> Exactness:
    """Return the weakest promise of some steps."""
    return Exactness.weakest(step.exactness for step in steps)
