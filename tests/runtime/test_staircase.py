from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.runtime import staircase
from structopt_onnx.runtime.cost_cache import CostCache
from structopt_onnx.runtime.staircase import rank_multiple, step_of

_RANKS = np.arange(33, 81)


def _stairs(step: int, noise: float = 0.0) -> np.ndarray:
    times = 1e-4 + 1e-5 * -(-_RANKS // step) * step
    return times * (1 + noise * np.random.default_rng(0).standard_normal(times.size))


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_the_step_of_a_staircase_is_found(step):
    assert step_of(_RANKS, _stairs(step)) == step


def test_a_little_noise_does_not_hide_the_steps():
    assert step_of(_RANKS, _stairs(16, noise=0.02)) == 16


def test_a_line_has_no_steps():
    assert step_of(_RANKS, _stairs(1)) is None


def test_noise_gives_no_answer():
    assert step_of(_RANKS, _stairs(8, noise=0.3)) is None


def _clock(monkeypatch, times) -> list[int]:
    calls: list[int] = []

    def timed(regions, settings):
        calls.append(len(regions))
        return list(times)

    monkeypatch.setattr(staircase, "time_regions", timed)
    return calls


@pytest.mark.parametrize("kind", ["matmul", "conv"])
def test_a_machine_is_measured_once(monkeypatch, tmp_path, kind):
    calls = _clock(monkeypatch, _stairs(16))
    assert rank_multiple(kind, CostCache(folder=tmp_path), 5.0) == 16
    assert rank_multiple(kind, CostCache(folder=tmp_path), 5.0) == 16
    assert calls == [len(_RANKS)]


def test_no_clear_answer_is_remembered_too(monkeypatch, tmp_path):
    calls = _clock(monkeypatch, _stairs(1))
    assert rank_multiple("conv", CostCache(folder=tmp_path), 5.0) is None
    assert rank_multiple("conv", CostCache(folder=tmp_path), 5.0) is None
    assert calls == [len(_RANKS)] * staircase._ATTEMPTS


def test_the_fastest_of_several_attempts_counts(monkeypatch, tmp_path):
    attempts = [_stairs(16) for _ in range(2)]
    attempts[0][::2] *= 1.5
    attempts[1][1::2] *= 1.5
    monkeypatch.setattr(staircase, "time_regions", lambda *_: list(attempts.pop(0)))
    assert rank_multiple("conv", CostCache(folder=tmp_path), 5.0) == 16
    assert not attempts


def test_an_unfinished_measurement_is_tried_again(monkeypatch, tmp_path):
    calls = _clock(monkeypatch, [1.0, *[None] * (len(_RANKS) - 1)])
    assert rank_multiple("conv", CostCache(folder=tmp_path), 5.0) is None
    assert rank_multiple("conv", CostCache(folder=tmp_path), 5.0) is None
    assert len(calls) == 2


@pytest.mark.parametrize("make", [staircase._matmuls, staircase._convolutions])
def test_the_pairs_run(make):
    (seconds,) = staircase.time_regions([make(33)], staircase.MicroSettings(5.0))
    assert seconds > 0
