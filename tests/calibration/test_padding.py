"""Padding is cut off where the model's outputs do not change, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structopt_onnx.api.inputs import open_source, samples_for
from structopt_onnx.calibration.padding import Padding

MASKED = """<ir_version: 8, opset_import: ["" : 17]>
agraph (int64[n,s] ids, int64[n,s] mask) => (float[n,3] y)
<float[5,3] table = {0,1,2, 3,-4,5, 6,7,-8, 9,1,2, -3,4,5},
 int64[1] last = {-1}, int64[1] one = {1}>
{
    rows = Gather(table, ids)
    kept = Cast<to=1>(mask)
    column = Unsqueeze(kept, last)
    shown = Mul(rows, column)
    sum = ReduceSum<keepdims=0>(shown, one)
    count = ReduceSum<keepdims=0>(column, one)
    y = Div(sum, count)
}"""
# The mask is not looked at.
UNMASKED = MASKED.replace("Cast<to=1>(mask)", "Cast<to=1>(same)").replace(
    "rows = Gather(table, ids)",
    "rows = Gather(table, ids)\n zero = Sub(mask, mask)\n same = Equal(zero, zero)",
)
# An output has the axis.
WHOLE = MASKED.replace("=> (float[n,3] y)", "=> (float[n,3] y, float[n,s,3] shown)")
# Only one length runs.
FUSSY = (
    MASKED.replace("=> (float[n,3] y)", "=> (float[n,3] y, float[16,1] z)")
    .replace("y = Div", "z = Reshape(kept, wide)\n y = Div")
    .replace("one = {1}>", "one = {1}, int64[2] wide = {16,1}>")
)


# Two names for one length.
TWO_NAMES = MASKED.replace("int64[n,s] mask", "int64[n,t] mask")
# What the padding would change is infinite, or is lost in float16.
INFINITE = MASKED.replace(
    "y = Div(sum, count)",
    "d = Div(sum, count)\n l = ReduceMin<keepdims=0, "
    "axes=[1,2]>(column)\n g = Log(l)\n w = Unsqueeze(g, one)\n y = Concat<axis=1>(d, w)",
).replace("float[n,3] y", "float[n,4] y")
HALF = (
    MASKED.replace("float[n,3] y", "float16[n,300] y")
    .replace(
        "y = Div(sum, count)",
        "all = ReduceMean<axes=[1]>(kept)\n s = Mul(all, hundred)\n e = Expand(s, wide)\n"
        " y = Cast<to=10>(e)",
    )
    .replace("one = {1}>", "one = {1}, float hundred = {100}, int64[2] wide = {1,300}>")
)
# Fewer than three positions do not run.
KERNEL = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[n,1,t] x) => (float[n,1] y) <float[1,1,3] w = {1,1,1}> {
    c = Conv(x, w)
    p = GlobalMaxPool(c)
    a = Flatten(p)
    y = Relu(a)
}"""


def samples_of(text, lengths, width=8, spare=0):
    rng = np.random.default_rng(0)
    ids = np.full((len(lengths), width), spare, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        # The last one differs from the padding and from the one before it.
        ids[row, :length] = rng.integers(1, 4, length)
        ids[row, length - 1] = 4
        mask[row, :length] = 1
    model = onnx.parser.parse_model(text)
    return read(model, {"ids": ids, "mask": mask})


def read(model, data):
    opened = open_source(model)
    return samples_for(opened, data, seed=0, threads=1, libraries=(), unpad=True)


def shapes(samples):
    return [feed["ids"].shape[1] for feed in samples]


LENGTHS = [3, 8, 5, 7, 2, 4, 6, 8, 1, 3]


@pytest.mark.parametrize("spare", [0, 1])
def test_what_is_fitted_and_probed_is_cut_and_what_is_judged_is_not(spare):
    samples = samples_of(MASKED, LENGTHS, spare=spare)
    fit, probe, final = samples.split()
    assert shapes(samples) == [8] * len(LENGTHS)
    # A single position at the end can't be told from a token.
    cut = [length if length < 7 else 8 for length in LENGTHS]
    assert shapes(fit) + shapes(probe) == cut[:8]
    assert shapes(final) == [8, 8]
    assert all(feed["mask"].all() for feed in fit if feed["ids"].shape[1] < 8)


def test_joined_samples_keep_the_longest():
    samples = samples_of(MASKED, LENGTHS)
    short = samples.unpadded().subset([0, 4, 5, 8])
    ((joined, count),) = short.batches(4)
    assert count == 4
    assert joined["ids"].shape == joined["mask"].shape == (4, 4)
    assert joined["mask"].sum(axis=1).tolist() == [3, 2, 4, 1]


@pytest.mark.parametrize(
    "text",
    [UNMASKED, WHOLE, INFINITE, HALF],
    ids=["not masked", "an output has the axis", "infinite", "too large for its type"],
)
def test_positions_that_the_outputs_tell_of_are_no_padding(text):
    samples = samples_of(text, LENGTHS)
    assert shapes(samples.unpadded()) == [8] * len(LENGTHS)


def test_a_model_that_runs_at_one_length_only_is_left_alone():
    samples = samples_of(FUSSY, [3, 16, 5, 9], width=16)
    assert shapes(samples.unpadded()) == [16] * 4


def test_a_sample_of_nothing_but_padding_stays():
    feed = {"ids": np.zeros((1, 8), np.int64), "mask": np.zeros((1, 8), np.int64)}
    assert Padding((("ids", 1), ("mask", 1))).cut(feed) is feed


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), data=st.data())
def test_what_is_cut_is_equal_in_every_row_and_never_more(lengths, data):
    width = 12
    values = data.draw(
        st.lists(st.integers(0, 1), min_size=width * len(lengths), max_size=width * len(lengths))
    )
    array = np.array(values).reshape(len(lengths), width)
    cut = Padding((("x", 1),)).cut({"x": array})["x"]
    gone = array[:, cut.shape[1] :]
    assert np.array_equal(cut, array[:, : cut.shape[1]])
    assert gone.shape[1] != 1
    if gone.size:
        assert (gone == gone[:, :1]).all()
        assert (array[:, cut.shape[1] - 1] != array[:, -1]).any()


def test_lengths_with_two_names_are_cut_alike():
    samples = samples_of(TWO_NAMES, LENGTHS).unpadded()
    assert [f["ids"].shape for f in samples] == [f["mask"].shape for f in samples]
    assert min(shapes(samples)) == 1
    # Two equal tokens at the end of a full row are padding by the ids alone.
    ids, mask = np.array([[1, 2, 3, 3]]), np.ones((1, 4), np.int64)
    feed = {"ids": ids, "mask": mask * [[1, 1, 1, 0]]}
    assert Padding((("ids", 1), ("mask", 1))).cut(feed) is feed


def test_a_model_that_needs_some_positions_is_left_alone():
    data = np.zeros((40, 1, 12), np.float32)
    data[:, :, :6] = np.random.default_rng(0).uniform(1, 2, (40, 1, 6))
    long = read(onnx.parser.parse_model(KERNEL), {"x": data})
    assert {f["x"].shape[2] for f in long.unpadded()} == {6}
    data[17, :, 1:] = 0
    short = read(onnx.parser.parse_model(KERNEL), {"x": data})
    assert {f["x"].shape[2] for f in short.unpadded()} == {12}


def test_what_is_cut_is_a_view_and_all_of_it_can_be_had_again():
    samples = samples_of(MASKED, LENGTHS)
    array = np.arange(12).reshape(1, 12) % 5
    array[:, 6:] = 0
    assert np.shares_memory(Padding((("x", 1),)).cut({"x": array})["x"], array)
    assert shapes(samples.split()[0].as_given()) == [8] * 6
