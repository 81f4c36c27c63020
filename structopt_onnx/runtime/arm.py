"""One model in a session of its own, ready to be run and timed again and again."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnxruntime as ort

from structopt_onnx.runtime.options import SessionSettings, naming, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

HOST = "cpu"

TypedFeed: TypeAlias = "dict[str, tuple[npt.NDArray[Any], int | None]]"
"""One run's inputs: array and ONNX element type (`None`: the array's own) per name."""


class Arm:
    """One session, ready to be run again and again on each feed without copies.

    Parameters
    ----------
    path
        The model file.
    feeds
        What to run it on.
    settings
        How its session is opened.
    """

    def __init__(self, path: Path, feeds: Sequence[TypedFeed], settings: SessionSettings) -> None:
        self.path = path
        gc.collect()
        started = time.perf_counter_ns()
        session = open_session(path, str(path), settings)
        device = settings.provider.device
        self.creation_ms = _ms_since(started)
        with naming(str(path), "run"):
            # A bound value only points into its array: both are kept as long as the session.
            self._values = [
                {name: _value(array, element, device) for name, (array, element) in feed.items()}
                if _bindable(session, feed)
                else None
                for feed in feeds
            ]
            self._runs = [
                _plain_run(session, feed) if values is None else _bound_run(session, values, device)
                for feed, values in zip(feeds, self._values, strict=True)
            ]
            started = time.perf_counter_ns()
            self._runs[0]()
            self.first_run_ms = _ms_since(started)

    def sample(self, feed: int, repeats: int) -> tuple[float, float]:
        """Run `repeats` times; return milliseconds per run of thread CPU time and wall clock."""
        run = self._runs[feed]
        wall = time.perf_counter_ns()
        cpu = time.thread_time_ns()
        for _ in range(repeats):
            run()
        cpu_ns = time.thread_time_ns() - cpu
        wall_ns = time.perf_counter_ns() - wall
        return cpu_ns / repeats / 1e6, wall_ns / repeats / 1e6

    def warm_up(self, runs: int) -> float:
        """Run every feed and at least `runs` times; return the fastest run in milliseconds."""
        feeds = len(self._runs)
        return min(self.sample(n % feeds, 1)[1] for n in range(max(runs, feeds)))


def _bindable(session: ort.InferenceSession, feed: TypedFeed) -> bool:
    """Whether inputs and outputs are tensors of numbers; strings and sequences can't be bound."""
    return all(array.dtype.kind != "U" for array, _ in feed.values()) and all(
        output.type.startswith("tensor(") and output.type != "tensor(string)"
        for output in session.get_outputs()
    )


def _plain_run(session: ort.InferenceSession, feed: TypedFeed) -> Callable[[], object]:
    names = [output.name for output in session.get_outputs()]
    return partial(session.run, names, {name: array for name, (array, _) in feed.items()})


def _bound_run(
    session: ort.InferenceSession, values: dict[str, ort.OrtValue], device: str
) -> Callable[[], object]:
    """Bind a feed: every later run reads it in place and reuses the outputs of the first."""
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    if device == HOST:
        return partial(session.run_with_iobinding, binding)
    # The transfer of inputs ends before the clock starts, the work before it stops.
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _value(array: npt.NDArray[Any], element: int | None, device: str) -> ort.OrtValue:
    array = np.ascontiguousarray(array)
    if element is None:
        return ort.OrtValue.ortvalue_from_numpy(array, device)
    # Of these types onnxruntime makes values on the host alone; it copies them at each run.
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element)


def _ms_since(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e6
