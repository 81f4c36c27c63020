"""The measuring process's part of a micro-benchmark: many small models, once per round each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime.arm import Arm
from structopt_onnx.runtime.options import Provider, SessionSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.runtime.arm import TypedFeed

_WARM_UPS = 2
# Opening sessions may take this share of the time; what is open by then is measured.
_OPENING = 0.6
_FINE_SECONDS = 1e-6


def micro(job: dict[str, Any]) -> dict[str, Any]:
    """Time every model of a job; see `micro_benchmark.time_regions`."""
    wanted = job["settings"]
    settings = SessionSettings(
        threads=wanted["threads"], spinning=False, provider=Provider(**wanted["provider"])
    )
    rounds = _Rounds(job["models"], job["idle"], settings, np.random.default_rng(wanted["seed"]))
    started = time.perf_counter()
    models = len(job["models"])
    seconds: list[float | None] = [None] * models
    done = 0
    for batch in job["batches"]:
        left = wanted["seconds"] - (time.perf_counter() - started)
        share = left * len(batch) / (models - done)
        done += len(batch)
        if left > 0:
            found = rounds.run(batch, share, wanted["rounds"], wanted["min_rounds"])
            for number, value in found.items():
                seconds[number] = value
    return {"seconds": seconds}


@dataclass(frozen=True)
class _Rounds:
    models: Sequence[dict[str, Any]]
    idle: dict[str, Any]
    settings: SessionSettings
    rng: np.random.Generator

    def run(self, batch: Sequence[int], seconds: float, most: int, least: int) -> dict[int, float]:
        """Return seconds per run of those models of a batch for which the time suffices."""
        started = time.perf_counter()
        opened: dict[int, Arm] = {}
        round_s = 0.0
        for number in batch:
            used = time.perf_counter() - started
            if opened and used + least * round_s > seconds * _OPENING:
                break
            try:
                arm = self._open(self.models[number])
            except ModelError:
                continue
            opened[number] = arm
            round_s += arm.warm_up(_WARM_UPS) / 1e3
        idle = self._open(self.idle)
        idle.warm_up(_WARM_UPS)
        left = seconds - (time.perf_counter() - started)
        count = max(least, min(most, int(left / max(round_s, 1e-6))))
        arms = {**opened, -1: idle}
        fastest = dict.fromkeys(arms, float("inf"))
        numbers = list(arms)
        on_cpu = self.settings.threads == 1 and _fine_cpu_clock()
        for _ in range(count):
            for place in self.rng.permutation(len(numbers)):
                number = numbers[place]
                cpu_ms, wall_ms = arms[number].sample(0, 1)
                fastest[number] = min(fastest[number], cpu_ms if on_cpu else wall_ms)
        nothing = fastest.pop(-1)
        return {n: max(ms - nothing, 1e-5) / 1e3 for n, ms in fastest.items()}

    def _open(self, model: dict[str, Any]) -> Arm:
        feed: TypedFeed = {
            name: (self._numbers(np.dtype(dtype), shape, low, high), None)
            for name, dtype, shape, low, high in model["inputs"]
        }
        return Arm(Path(model["path"]), [feed], self.settings)

    def _numbers(
        self, dtype: np.dtype[Any], shape: Sequence[int], low: int, high: int
    ) -> np.ndarray[Any, np.dtype[Any]]:
        if dtype.kind in "iu":
            return self.rng.integers(low, high, shape, dtype, endpoint=True)
        return self.rng.standard_normal(shape).astype(dtype)


def _fine_cpu_clock() -> bool:
    """Whether this thread's processor time, which waiting is not part of, is finely resolved."""
    return time.get_clock_info("thread_time").resolution <= _FINE_SECONDS
