"""Fine-tuning: a student's weights moved towards a teacher's outputs (Hinton et al., 2015).

The loss is the relative squared error of the outputs and, with more weight as long as that helps,
the mean of those of the hidden tensors that both models have under the same name (FitNets: Romero
et al., 2015): a few hundred samples say more of a deep model when every layer is told what it
should have made.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.recovery.student import Student
    from structopt_onnx.runtime.session import Feeds, Session

    Array = npt.NDArray[Any]
    Runs = list[tuple[Feeds, int]]

# Samples per step, joined where the model takes them in one run; and the factor that sizes are
# blurred by before samples are sorted by them, so that an epoch has other steps than the last.
_BATCH, _BLUR = 32, 1.2
# Adam's step, in units of a weight's root mean square: what factors of a layer are scaled by
# differs from layer to layer.
_STEP, _LEAST_SCALE = 0.01, 0.01
_WARM_UP = 20
_BETAS = (0.9, 0.99)
# What hidden tensors weigh beside the outputs, until they help no more; and after that.
_HIDDEN_WEIGHTS = (10.0, 0.1)
_LEAST_ENERGY = 1e-12


@dataclass(frozen=True)
class Pace:
    """How long to go on.

    Parameters
    ----------
    steps
        Steps of the optimizer at most.
    seconds
        Wall time at most; a run that it cuts short is not the same on another machine.
    looks
        How often the judge is asked on the way.
    patience
        Looks in a row without a gain after which hidden tensors weigh less, and then it is over.
    """

    steps: int = 2000
    seconds: float = 600.0
    looks: int = 40
    patience: int = 8


@dataclass(frozen=True)
class Tuned:
    """The best weights on the way, and what the way was like.

    Parameters
    ----------
    weights
        By name; None where nothing was better than the start.
    errors
        What the judge said, at the start and after every look.
    steps
        Steps taken.
    stopped
        Why no further ones were.
    """

    weights: dict[str, Array] | None
    errors: tuple[float, ...]
    steps: int
    stopped: str


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tune(
    student: Student,
    teacher: Session,
    samples: Samples,
    judge: Callable[[Mapping[str, Array]], float],
    *,
    pace: Pace,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Tune a student's weights with Adam, and keep the best that a judge saw.

    Parameters
    ----------
    student
        What is tuned.
    teacher
        Gives every value that the student returns, by the same names, on the same inputs.
    samples
        Inputs to learn from; no labels are needed.
    judge
        Tells the error with some weights, on samples that are not learned from.
    pace
        When to stop.
    seed
        Of the order of the samples.
    progress
        Called with a line about what happens now.

    Raises
    ------
    NotDifferentiableError
        When a node turns out not to be.
    """
    groups = [
        {"params": [p], "lr": _STEP * max(_LEAST_SCALE, float(p.detach().square().mean().sqrt()))}
        for p in student.parameters.values()
    ]
    optimizer = torch.optim.Adam(groups, betas=_BETAS)
    start = time.monotonic()

    def done(steps: int) -> float:
        """Return the share of the steps or of the time that is over, whichever is more."""
        return max(steps / pace.steps, (time.monotonic() - start) / max(1e-9, pace.seconds))

    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda steps: _rate(steps, min(1.0, done(steps)))
    )
    errors, best, since, stopped = [judge(student.weights())], None, 0, ""
    hidden, *later = _HIDDEN_WEIGHTS
    looks = max(1, pace.steps // pace.looks)
    for steps, runs in enumerate(_shuffled(samples, seed), 1):
        optimizer.zero_grad()
        count = sum(rows for _, rows in runs)
        for feeds, rows in runs:
            (_loss(student, teacher, feeds, hidden) * (rows / count)).backward()
        optimizer.step()
        schedule.step()
        over = done(steps) >= 1
        if steps % looks and not over:
            continue
        weights = student.weights()
        errors.append(judge(weights))
        if errors[-1] < min(errors[:-1]):
            best, since = weights, 0
        else:
            since += 1
        progress(f"recover: step {steps}, error {errors[-1]:.4g} (was {errors[0]:.4g})")
        if over:
            stopped = "all steps done" if steps >= pace.steps else "the time was up"
        elif since >= pace.patience and later:
            hidden, *later = later
            since = 0
        elif since >= pace.patience:
            stopped = f"no gain in {since * looks} steps"
        if stopped:
            return Tuned(best, tuple(errors), steps, stopped)
    raise AssertionError("batches never end")


def _rate(steps: int, done: float) -> float:
    """Return what the step is scaled by: it rises from 0, and falls as half a cosine."""
    return min(1.0, (steps + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def _shuffled(samples: Samples, seed: int) -> Iterator[Runs]:
    """Yield what goes into a step, over and over: samples that are neighbours by their size."""
    order = np.random.default_rng(seed)
    sizes = np.array([sum(array.size for array in feeds.values()) for feeds in samples])
    while True:
        blurred = sizes * order.uniform(1, _BLUR, len(sizes)) + order.uniform(size=len(sizes))
        steps = list(_steps(samples.subset(np.argsort(blurred))))
        for k in order.permutation(len(steps)):
            yield steps[k]


def _steps(samples: Samples) -> Iterator[Runs]:
    """Yield the runs of each step, with the number of samples in each."""
    held: Runs = []
    for feeds, count in samples.batches(_BATCH):
        held.append((feeds, count))
        if sum(rows for _, rows in held) >= _BATCH:
            yield held
            held = []
    if held:
        yield held


def _loss(student: Student, teacher: Session, feeds: Feeds, weight: float) -> torch.Tensor:
    wanted = {info.name for info in teacher.inputs}
    told = teacher.run({name: array for name, array in feeds.items() if name in wanted})
    made = student.run(feeds)
    terms: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for name, value in made.items():
        target = torch.from_numpy(told[name]).to(value.dtype)
        energy = target.square().mean().clamp(min=_LEAST_ENERGY)
        hidden = name not in student.final
        terms[hidden].append((value - target).square().mean() / energy)
    total = torch.stack(terms[False]).mean()
    if terms[True]:
        total = total + weight * torch.stack(terms[True]).mean()
    return total
