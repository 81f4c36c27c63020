"""What goes into a step of fine-tuning."""

from __future__ import annotations

import os

import numpy as np
import pytest

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.runtime.session import TensorInfo

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

from structopt_onnx.recovery import tuning

FREE = TensorInfo("x", np.dtype(np.float32), ("N", "T"), "tensor(float)")
ONE = TensorInfo("x", np.dtype(np.float32), (1, "T"), "tensor(float)")


def epoch(samples, seed=0):
    steps, count, shuffled = [], 0, tuning._shuffled(samples, seed)
    while count < len(samples):
        steps.append(next(shuffled))
        count += sum(rows for _, rows in steps[-1])
    return steps


def test_steps_hold_every_sample_of_an_epoch_once_and_as_many_each(tmp_path):
    for k in range(10):
        np.savez(tmp_path / f"{k}.npz", x=100 * k + np.arange(20, dtype=np.float32)[:, None])
    steps = epoch(load_samples(tmp_path, [FREE]))
    assert sorted(sum(rows for _, rows in step) for step in steps) == [8, *[32] * 6]
    seen = np.concatenate([feeds["x"][:, 0] for step in steps for feeds, _ in step])
    assert len(set(seen.tolist())) == 200
    assert all(len(step) == 1 for step in steps)


def test_samples_of_one_run_each_are_many_runs_of_a_step():
    steps = epoch(load_samples({"x": np.zeros((40, 3), np.float32)}, [ONE]))
    assert sorted(len(step) for step in steps) == [8, 32]
    assert {rows for step in steps for _, rows in step} == {1}


def test_a_step_holds_neighbours_by_size():
    feeds = [{"x": np.zeros((1, size), np.float32)} for size in [10] * 64 + [40] * 64]
    sizes = [{f["x"].shape[1] for f, _ in step} for step in epoch(load_samples(feeds, [FREE]))]
    assert sorted(map(sorted, sizes)) == [[10], [10], [40], [40]]


def test_epochs_differ_and_seeds_repeat():
    samples = load_samples({"x": np.arange(96, dtype=np.float32)[:, None]}, [FREE])
    shuffled, again = tuning._shuffled(samples, 0), tuning._shuffled(samples, 0)
    rows = [
        [next(order)[0][0]["x"][:, 0].tolist() for _ in range(6)] for order in (shuffled, again)
    ]
    assert rows[0] == rows[1]
    assert sorted(map(sorted, rows[0][:3])) != sorted(map(sorted, rows[0][3:]))


def test_hidden_tensors_weigh_less_once_they_help_no_more(monkeypatch):
    class Student:
        parameters = {"w": torch.ones(2, requires_grad=True)}  # noqa: RUF012 - a stand-in

        def weights(self):
            return {}

    told = []

    def loss(student, teacher, feeds, weight):
        told.append(weight)
        return 0 * student.parameters["w"].sum()

    monkeypatch.setattr(tuning, "_loss", loss)
    samples = load_samples({"x": np.zeros((32, 1), np.float32)}, [FREE])
    pace = tuning.Pace(steps=100, seconds=60, looks=10, patience=2)
    done = tuning.tune(Student(), None, samples, lambda _: 1.0, pace=pace)
    assert told == [10.0] * 20 + [0.1] * 20
    assert (done.weights, done.stopped) == (None, "no gain in 20 steps")
