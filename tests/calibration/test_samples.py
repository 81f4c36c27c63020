from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.errors import DataError
from structopt_onnx.runtime.session import TensorInfo

X = TensorInfo("x", np.dtype(np.float32), ("N", 2), "tensor(float)")
FIXED = TensorInfo("x", np.dtype(np.float32), (1, 2), "tensor(float)")


def made(count, sources=None, info=X):
    data = {"x": np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, axis=1)}
    if sources is not None:
        data["__source__"] = np.asarray(sources)
    return load_samples(data, [info])


def labels(samples):
    return [int(feed["x"][0, 0]) for feed in samples]


@settings(deadline=None, max_examples=80)
@given(sources=st.lists(st.integers(0, 7), min_size=3, max_size=60))
def test_split_is_a_partition_that_keeps_sources_whole(sources):
    samples = made(len(sources), sources)
    parts = samples.split()
    assert all(len(part) for part in parts)
    together = [label for part in parts for label in labels(part)]
    assert sorted(together) == list(range(len(sources)))
    blocked = {part.blocked for part in parts}
    if len(set(sources)) < 3:
        assert blocked == {True}
        assert together == list(range(len(sources)))
    else:
        assert blocked == {False}
        owned = [set(part.sources.tolist()) for part in parts]
        assert sum(map(len, owned)) == len(set(sources))


@settings(deadline=None, max_examples=80)
@given(
    count=st.integers(3, 200),
    weights=st.tuples(*[st.floats(0.01, 1.0)] * 3),
)
def test_blocks_follow_the_fractions(count, weights):
    parts = made(count).split(weights)
    sizes = [len(part) for part in parts]
    assert min(sizes) >= 1
    assert sum(sizes) == count
    for size, weight in zip(sizes, weights, strict=True):
        assert abs(size - count * weight / sum(weights)) <= 2.5


@pytest.mark.parametrize(
    ("count", "sizes"), [(10, [6, 2, 2]), (1000, [600, 200, 200]), (2000, [1500, 250, 250])]
)
def test_what_judges_need_not_grow_as_what_is_fitted_to(count, sizes):
    assert [len(part) for part in made(count).split()] == sizes


def test_many_sources_are_shared_out_near_the_fractions():
    sources = np.repeat(np.arange(40), 5)
    sizes = [len(part) for part in made(200, sources).split()]
    assert sizes == [120, 40, 40]


def test_the_parts_of_a_block_split_are_contiguous_and_shared():
    samples = made(10)
    fit_on, probe, final = samples.split()
    assert (labels(fit_on), labels(probe), labels(final)) == ([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])
    assert not samples.blocked
    assert np.shares_memory(final[0]["x"], samples[8]["x"])
    assert final.origin == samples.origin


def test_fewer_than_three_samples_cannot_be_split():
    with pytest.raises(DataError, match="holds 2 samples; calibration needs at least 3"):
        made(2).split()


def test_subsets_and_slices_keep_order_and_sources():
    samples = made(6, list("aabbcc"))
    some = samples.subset([4, 0, 3])
    assert labels(some) == [4, 0, 3]
    assert some.sources.tolist() == ["c", "a", "b"]
    assert labels(some.subset([2, 0])) == [3, 4]
    assert labels(samples[1:5:2]) == [1, 3]
    assert labels([samples[-1]]) == [5]
    with pytest.raises(IndexError):
        samples[6]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 30),
    size=st.integers(1, 40),
    chosen=st.lists(st.integers(0, 29), min_size=1, max_size=30),
)
def test_batches_hold_every_sample_once_in_order(count, size, chosen):
    samples = made(count).subset([k % count for k in chosen])
    feeds = list(samples.batches(size))
    assert all(1 <= len(feed["x"]) == rows <= size for feed, rows in feeds)
    joined = np.concatenate([feed["x"] for feed, _ in feeds])
    np.testing.assert_array_equal(joined, np.concatenate([feed["x"] for feed in samples]))


def test_batches_join_as_many_rows_as_asked_for():
    assert [rows for _, rows in made(10).batches(4)] == [4, 4, 2]
    assert [rows for _, rows in made(3).batches(1)] == [1, 1, 1]


def test_batches_never_join_what_is_not_one_run():
    assert [rows for _, rows in made(4, info=FIXED).batches(4)] == [1, 1, 1, 1]
    feeds = [{"x": np.zeros((1, 2), np.float32)} for _ in range(3)]
    assert len(list(load_samples(feeds, [X]).batches(3))) == 3


def test_batches_reach_across_files_of_one_size(tmp_path):
    info = TensorInfo("x", np.dtype(np.float32), ("N", "T"), "tensor(float)")
    for number, width in enumerate((2, 2, 3)):
        data = np.full((3, width), number, np.float32)
        np.savez(tmp_path / f"{number}.npz", x=data)
    samples = load_samples(tmp_path, [info])
    feeds = [feed["x"] for feed, _ in samples.batches(4)]
    assert [feed.shape for feed in feeds] == [(4, 2), (2, 2), (3, 3)]
    assert feeds[0][:, 0].tolist() == [0, 0, 0, 1]
    mixed = samples.subset([0, 4, 8, 1])
    assert [feed["x"].shape for feed, _ in mixed.batches(4)] == [(2, 2), (1, 3), (1, 2)]
