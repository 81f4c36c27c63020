from __future__ import annotations

import math
from dataclasses import replace

import pytest

from structopt_onnx.runtime.comparison import Comparison, Timing
from structopt_onnx.runtime.evaluation import evaluate
from structopt_onnx.runtime.machine import current
from structopt_onnx.runtime.replicates import replicate_of

TIMING = Timing(None, None, None, 0, None, None, None, 1)
BASE = Comparison(
    a=TIMING, b=TIMING, ratio=None, low=None, high=None, control_ratio=None, control_spread=None,
    control="fresh session", verdict="not measured", reason="", clock="wall", deployed=None,
    replicates=8, pairs=0, feeds=1, seconds=1.0, provider="CPUExecutionProvider",
    machine=current(),
)  # fmt: skip


def raw(*times: list[list[float]]) -> dict[str, object]:
    """What the measuring process hands over: replicates of arms of pairs."""
    once = [[1.0] * len(arms) for arms in times]
    return {"wall_ms": [*times], "cpu_ms": [], "creation_ms": once, "first_run_ms": once}


def test_a_replicate_keeps_its_times_and_both_ratios():
    found = replicate_of([[1.0, 2.0, 4.0], [0.5, 1.0, 2.0], [1.1, 2.2, 4.4]], 2)
    assert (found.a, found.b) == ((1.0, 2.0, 4.0), (0.5, 1.0, 2.0))
    assert found.ratio == pytest.approx(0.5)
    assert found.control_ratio == pytest.approx(1.1)


def test_without_a_second_model_or_a_control_there_is_no_ratio():
    alone = replicate_of([[0.123456, 0.2], [0.2, 0.3]], 1)
    assert (alone.a, alone.b, alone.ratio) == ((0.1235, 0.2), (), None)
    assert replicate_of([[1.0], [2.0]], 2).control_ratio is None


def test_the_record_holds_the_times_that_the_interval_comes_from():
    times = [[[1.0, 1.1], [0.8, 0.9], [1.0, 1.1]], [[1.2, 1.3], [0.9, 1.0], [1.2, 1.3]]]
    found = evaluate(BASE, raw(*times), None)
    assert [list(r.a) for r in found.replicate_times] == [t[0] for t in times]
    logs = [math.log(r.ratio) for r in found.replicate_times]
    assert math.log(found.ratio) == pytest.approx(sum(logs) / 2)
    one = evaluate(replace(BASE, b=None), raw(*[t[:2] for t in times]), None)
    assert [r.b for r in one.replicate_times] == [(), ()]
