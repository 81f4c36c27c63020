from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structopt_onnx.calibration.layout import Layout, fit
from structopt_onnx.errors import DataError
from structopt_onnx.runtime.session import TensorInfo


def info(name="x", shape=("N", 3), dtype=np.float32):
    element = np.dtype(dtype)
    text = "tensor(string)" if element.hasobject else f"tensor({element.name})"
    return TensorInfo(name=name, dtype=element, shape=tuple(shape), type=text)


@settings(deadline=None, max_examples=60)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    count=st.integers(1, 5),
    free=st.booleans(),
)
def test_rank_decides_between_batched_and_stacked(shape, count, free):
    rows = 1 if free else shape[0]
    declared = ("N", *shape[1:]) if free else shape
    batched = np.random.default_rng(0).normal(size=(count * rows, *shape[1:])).astype(np.float32)
    stacked = np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)

    one = fit({"x": batched}, [info(shape=declared)], origin="data")
    assert one.count == count
    for i in range(count):
        found = one.feed(i)["x"]
        np.testing.assert_array_equal(found, batched[i * rows : (i + 1) * rows])
        assert np.shares_memory(found, batched)

    other = fit({"x": stacked}, [info(shape=declared)], origin="data")
    assert other.count == count
    for i in range(count):
        np.testing.assert_array_equal(other.feed(i)["x"], stacked[i])


def test_scalars_are_stacked_or_shared():
    rate, x = info("rate", (), np.int64), info()
    data = np.zeros((4, 3), np.float32)
    part = fit({"rate": np.arange(4), "x": data}, [rate, x], origin="data")
    assert [part.feed(i)["rate"].tolist() for i in range(4)] == [0, 1, 2, 3]
    assert part.feed(2)["rate"].shape == ()
    part = fit({"rate": np.array(16000), "x": data}, [rate, x], origin="data")
    assert part.count == 4
    assert part.feed(3)["rate"] == 16000
    assert fit({"rate": np.array(7)}, [rate], origin="data").count == 1


def test_a_single_slice_of_a_stack_keeps_its_array_type():
    part = fit({"x": np.zeros(3, np.float32)}, [info(shape=())], origin="data")
    assert isinstance(part.feed(0)["x"], np.ndarray)


def test_whole_arrays_are_one_feed_as_they_are():
    array = np.zeros((5, 3), np.float32)
    part = fit({"x": array}, [info()], origin="data", whole=True)
    assert part.count == 1
    assert part.feed(0)["x"].shape == (5, 3)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((2, 3), np.float32), "z": np.zeros(2)}, "'z' is not an input"),
        ({"x": np.zeros(3, np.float32)}, "'x' has rank 1 instead of 2 (batched) or 3 (stacked)"),
        ({"x": np.zeros((2, 4), np.float32)}, "'x' has shape [1, 4] per sample"),
        ({"x": np.zeros((2, 1, 4), np.float32)}, "'x' has shape [1, 4] per sample"),
        ({"x": np.zeros((2, 3), np.int64)}, "'x' has dtype int64"),
        ({"x": np.full((2, 3), 0.1)}, "'x' has dtype float64, and its values do not all exist"),
        ({"x": np.array([[0, np.nan, 0]], np.float32)}, "'x' holds NaN"),
        ({"x": np.zeros((0, 3), np.float32)}, "'x' holds no sample"),
        ({"x": np.array([["a", "b", "c"]])}, "'x' has dtype <U1"),
    ],
)
def test_a_mismatch_says_what_was_expected_and_found(arrays, told):
    with pytest.raises(DataError) as caught:
        fit(arrays, [info()], origin="cal.npz")
    message = str(caught.value)
    assert message.startswith("cal.npz does not fit the model: ")
    assert told in message
    assert "Expected x: float32[N,3]; found " in message
    assert "\n" not in message


def test_all_mismatches_are_told_at_once():
    inputs = [info("a"), info("b"), info("c", (2, 2))]
    arrays = {
        "a": np.zeros((4, 3), np.float32),
        "b": np.zeros((5, 3), np.float32),
        "c": np.zeros((7, 2), np.float32),
    }
    with pytest.raises(DataError) as caught:
        fit(arrays, inputs, origin="data")
    message = str(caught.value)
    assert "numbers of samples differ: 'a' 4, 'b' 5" in message
    assert "'c' has 7 rows, not a multiple of the model's fixed 2" in message
    assert "c: float32[7,2]" in message


def test_whole_inputs_of_another_rank_are_refused():
    with pytest.raises(DataError, match="'x' has rank 3 instead of 2"):
        fit({"x": np.zeros((1, 2, 3), np.float32)}, [info()], origin="data", whole=True)


@pytest.mark.parametrize(
    ("given", "wanted", "values"),
    [
        (np.int64, np.int32, [-1, 0, 2**31 - 1]),
        (np.int32, np.int64, [-1, 5]),
        (np.uint8, np.int64, [0, 255]),
        (np.float64, np.float32, [0.5, -np.inf]),
        (np.float32, ml_dtypes.bfloat16, [0.5, 1.0]),
    ],
)
def test_another_width_is_taken_when_every_value_survives(given, wanted, values):
    array = np.array(values, given)
    part = fit({"x": array}, [info(shape=("N",), dtype=wanted)], origin="data")
    found = part.columns["x"].array
    assert found.dtype == wanted
    assert found.astype(given).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("given", "wanted", "values"),
    [
        (np.int64, np.int32, [2**31]),
        (np.uint64, np.int64, [2**63]),
        (np.int8, np.uint8, [-1]),
        (np.float64, np.float16, [1e5]),
        (np.float32, ml_dtypes.bfloat16, [0.1]),
        (np.uint8, np.float32, [1]),
        (np.int64, np.bool_, [1]),
        (np.float32, np.int64, [1.0]),
    ],
)
def test_a_conversion_that_loses_or_reinterprets_is_refused(given, wanted, values):
    array = np.array(values, given)
    with pytest.raises(DataError, match="'x' has dtype"):
        fit({"x": array}, [info(shape=("N",), dtype=wanted)], origin="data")


def test_bfloat16_out_of_an_archive_is_recognized(tmp_path):
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.savez(tmp_path / "a.npz", x=array)
    stored = np.load(tmp_path / "a.npz")["x"]
    assert stored.dtype != array.dtype
    part = fit({"x": stored}, [info(shape=("N",), dtype=ml_dtypes.bfloat16)], origin="data")
    np.testing.assert_array_equal(part.columns["x"].array, array)


def test_infinities_are_data():
    array = np.array([[0.0, -np.inf, np.inf]], np.float32)
    assert fit({"x": array}, [info()], origin="data").count == 1


def test_strings_are_taken_as_text_or_objects_only():
    texts = info(shape=("N",), dtype=object)
    for array in (np.array(["a", "bc"]), np.array(["a", "bc"], dtype=object)):
        assert fit({"x": array}, [texts], origin="data").feed(1)["x"].tolist() == ["bc"]
    with pytest.raises(DataError, match="'x' holds int64 instead of strings"):
        fit({"x": np.zeros(2, np.int64)}, [texts], origin="data")
    with pytest.raises(DataError, match="instead of strings"):
        fit({"x": np.array([1, "a"], dtype=object)}, [texts], origin="data")


def test_only_tensors_can_be_fed():
    sequence = TensorInfo(name="x", dtype=None, shape=(), type="seq(tensor(float))")
    with pytest.raises(DataError, match=r"'x' is a seq\(tensor\(float\)\)"):
        fit({"x": np.zeros(2)}, [sequence], origin="data")


def test_overridable_initializers_may_be_given_or_left_out():
    default = info("w", (3,))
    x = np.zeros((3, 3), np.float32)
    assert fit({"x": x}, [info()], [default], origin="data").columns.keys() == {"x"}
    w = np.ones((3, 3), np.float32)
    part = fit({"x": x, "w": w}, [info()], [default], origin="data")
    assert part.columns["w"].layout is Layout.STACKED
    with pytest.raises(DataError, match="'w' has shape"):
        fit({"x": x, "w": np.ones((3, 4), np.float32)}, [info()], [default], origin="data")


@pytest.mark.parametrize(
    ("shapes", "arrays", "joinable"),
    [
        ([("N", 3)], [(6, 3)], True),
        ([(None, 3)], [(6, 3)], True),
        ([(1, 3)], [(6, 3)], False),
        ([("N", 3)], [(6, 1, 3)], False),
        ([("N", 3), ("N", 2)], [(6, 3), (6, 2)], True),
        ([("N", 3), ("M", 2)], [(6, 3), (6, 2)], False),
        ([("N", 3), (1, 2)], [(6, 3), (6, 2)], False),
        ([("N", 3), ()], [(6, 3), (6,)], False),
        ([("N", 3), (2, "N")], [(6, 3), (6, 2, 1)], False),
    ],
)
def test_rows_are_joinable_only_where_all_inputs_are_batched_by_one_free_axis(
    shapes, arrays, joinable
):
    inputs = [info(f"x{k}", shape) for k, shape in enumerate(shapes)]
    data = {f"x{k}": np.zeros(shape, np.float32) for k, shape in enumerate(arrays)}
    assert fit(data, inputs, origin="data").joinable is joinable
