from __future__ import annotations

import weakref
from threading import Barrier, Thread

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.calibration import streaming
from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.calibration.streaming import StreamedMoments, grouped
from structopt_onnx.errors import DataError
from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.runtime.session import Session

LAYERS, WIDTH = 12, 5
WANTED = [Statistic((f"h{k}",), -1) for k in range(LAYERS)]
ONE = MomentsAccumulator.nbytes(WIDTH)


@pytest.fixture(scope="module")
def model():
    steps = " ".join(f"h{k + 1} = {'Neg' if k % 2 else 'Abs'}(h{k})" for k in range(LAYERS))
    text = f"g (float[n, {WIDTH}] h0) => (float[n, {WIDTH}] h{LAYERS}) {{ {steps} }}"
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": 17]>\n{text}')


@pytest.fixture(scope="module")
def samples(model):
    rows = np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)
    return load_samples({"h0": rows}, Session(model).inputs)


@pytest.fixture
def passes(monkeypatch):
    """Groups gathered, and the number of moments alive after each."""
    found = []
    made = []

    def counted(*args, **options):
        moments = gather(*args, **options)
        made.extend(weakref.ref(each.covariance) for each in moments.values())
        found.append((list(args[2]), sum(each() is not None for each in made)))
        return moments

    monkeypatch.setattr(streaming, "gather", counted)
    return found


def test_all_that_fits_takes_one_pass(model, samples, passes):
    streamed = StreamedMoments(model, samples, WANTED, max_bytes=LAYERS * ONE)
    assert passes == []
    everything = gather(model, samples, WANTED)
    for statistic in WANTED:
        found, expected = streamed[statistic], everything[statistic]
        assert found.count == expected.count
        np.testing.assert_array_equal(found.covariance, expected.covariance)
    assert passes == [(WANTED, LAYERS)]


@pytest.mark.parametrize("at_once", [4, 7, 11])
def test_never_more_moments_are_alive_than_fit(model, samples, passes, at_once):
    streamed = StreamedMoments(model, samples, WANTED, max_bytes=at_once * ONE)
    everything = gather(model, samples, WANTED)
    for statistic in WANTED:
        np.testing.assert_array_equal(
            streamed[statistic].covariance, everything[statistic].covariance
        )
    assert [s for group, _ in passes for s in group] == WANTED  # each gathered once
    alive = [count for _, count in passes]
    assert max(alive) <= at_once
    assert len(passes) == -(-LAYERS // (at_once // 2))


def test_neighbours_of_two_groups_take_turns_without_another_pass(model, samples, passes):
    streamed = StreamedMoments(model, samples, WANTED, max_bytes=6 * ONE)
    for k in (2, 3, 2, 3, 1, 4):
        assert streamed.get(WANTED[k]) is not None
    assert [group for group, _ in passes] == [WANTED[:3], WANTED[3:6]]
    assert streamed[WANTED[6]].count == 20  # the first group makes way
    assert streamed[WANTED[0]].count == 20
    assert [group for group, _ in passes[2:]] == [WANTED[6:9], WANTED[:3]]


def test_one_that_is_larger_than_the_bound_comes_alone(model, samples, passes):
    streamed = StreamedMoments(model, samples, WANTED[:3], max_bytes=1)
    assert [streamed[s].count for s in WANTED[:3]] == [20] * 3
    assert [group for group, _ in passes] == [[s] for s in WANTED[:3]]


def test_what_was_not_wanted_or_has_no_moments_is_none(model):
    samples = load_samples(
        {"h0": np.array([[1] * WIDTH, [np.inf] * WIDTH], np.float32)}, Session(model).inputs
    )
    streamed = StreamedMoments(model, samples, WANTED[:2], max_bytes=1)
    assert streamed.get(WANTED[0]) is None
    assert streamed.get(WANTED[5]) is None
    assert list(streamed) == WANTED[:2]
    assert len(streamed) == 2


def test_what_is_not_in_the_model_is_said_at_once(model, samples):
    with pytest.raises(DataError, match="tensor 'absent' is not in the model's main graph"):
        StreamedMoments(model, samples, [Statistic(("absent",), -1)], max_bytes=ONE)


def test_forgotten_moments_are_gathered_again(model, samples, passes):
    streamed = StreamedMoments(model, samples, WANTED, max_bytes=LAYERS * ONE)
    held = weakref.ref(streamed[WANTED[0]].covariance)
    streamed.forget()
    assert held() is None
    assert streamed[WANTED[0]].count == 20
    assert len(passes) == 2


def test_threads_that_ask_at_once_cause_one_pass(model, samples, passes):
    streamed = StreamedMoments(model, samples, WANTED, max_bytes=LAYERS * ONE)
    barrier = Barrier(4)
    found = []

    def ask():
        barrier.wait()
        found.append(streamed[WANTED[3]])

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passes) == 1
    assert all(moments is found[0] for moments in found)
    assert len(found) == 4


def test_groups_are_filled_in_order():
    assert list(grouped([("a", 2), ("b", 3), ("c", 4), ("d", 9), ("e", 1)], 5)) == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]
    assert list(grouped([], 5)) == []
