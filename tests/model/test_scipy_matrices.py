from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so
from structopt_onnx.model.external import DataFolder
from structopt_onnx.model.sparse import densify_tensor

LAYOUTS = ("csr", "csc", "coo")
TYPES = [np.bool_, np.complex64, np.float32, np.float64, np.int8, np.int64, np.uint16, np.uint64]


def matrix(shape=(20, 30), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random(shape) < 0.1, rng.standard_normal(shape) * 50, 0)
    return dense.astype(dtype)


def dense_of(sparse: onnx.SparseTensorProto) -> np.ndarray:
    return numpy_helper.to_array(densify_tensor(sparse, "w", DataFolder("m", None)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_in_and_out(dtype, layout, kind):
    dense = matrix(dtype=dtype)
    given_ = getattr(scipy.sparse, f"{layout}_{kind}")(dense)
    sparse = so.from_scipy(given_, "w")
    assert sparse.values.name == "w"
    np.testing.assert_array_equal(dense_of(sparse), dense)
    for other in LAYOUTS:
        back = so.to_scipy(sparse, other)
        assert back.format == other
        assert back.dtype == dense.dtype
        np.testing.assert_array_equal(back.toarray(), dense)


def test_a_model_made_of_one_is_valid_and_runs(tmp_path):
    import onnxruntime  # noqa: PLC0415 - after structopt_onnx

    dense = matrix()
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, ["N", 20])],
        [info("y", TensorProto.FLOAT, ["N", 30])],
        sparse_initializer=[so.from_scipy(scipy.sparse.csc_array(dense), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.eye(20, dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], dense)


def test_repeated_and_unsorted_entries_and_stored_zeros():
    rows, columns = [2, 0, 2, 1, 0], [1, 3, 1, 0, 0]
    values = np.array([1, 5, 2, 0, -0.0], np.float32)
    entries = scipy.sparse.coo_array((values, (rows, columns)), shape=(3, 4))
    sparse = so.from_scipy(entries, "w")
    assert list(sparse.indices.int64_data) == [0, 3, 9]
    kept = numpy_helper.to_array(sparse.values)
    np.testing.assert_array_equal(kept, [-0.0, 5, 3])
    assert np.signbit(kept[0])
    assert entries.nnz == 5  # the caller's is as it was
    unsorted = scipy.sparse.csr_array((values[1:3], [3, 1], [0, 2, 2]), shape=(2, 4))
    assert list(so.from_scipy(unsorted, "w").indices.int64_data) == [1, 3]


def test_other_ranks_are_coo():
    dense = matrix((4, 5, 6))
    sparse = so.from_scipy(scipy.sparse.coo_array(dense), "w")
    np.testing.assert_array_equal(so.to_scipy(sparse, "coo").toarray(), dense)
    with pytest.raises(so.UsageError, match="rank 3 is no matrix"):
        so.to_scipy(sparse)
    line = so.from_scipy(scipy.sparse.coo_array(dense.reshape(-1)), "w")
    np.testing.assert_array_equal(so.to_scipy(line, "coo").toarray(), dense.reshape(-1))


@pytest.mark.parametrize(
    ("given_", "cause"),
    [
        (np.eye(3), "not a scipy sparse array but ndarray"),
        (scipy.sparse.csr_array((0, 3)), "no elements"),
        (scipy.sparse.coo_array((2**40, 2**40)), "more than 2"),
        (scipy.sparse.coo_array(np.eye(3, dtype=np.longdouble)), "no element type"),
    ],
)
def test_what_is_no_initializer(given_, cause):
    with pytest.raises(so.UsageError, match=cause):
        so.from_scipy(given_, "w")


def test_what_scipy_can_not_hold():
    half = onnx.SparseTensorProto(dims=[2, 2])
    half.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float16), "w"))
    half.indices.CopyFrom(numpy_helper.from_array(np.array([3])))
    with pytest.raises(so.UsageError, match="no sparse arrays of float16"):
        so.to_scipy(half)
    with pytest.raises(so.UsageError, match="one of csr, csc, coo, not 'bsr'"):
        so.to_scipy(half, "bsr")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hostile_tensors_take_no_memory(layout):
    vast = so.from_scipy(scipy.sparse.coo_array(([1.0], ([5], [0])), shape=(10**12, 1)), "w")
    tracemalloc.start()
    with pytest.raises(so.ModelError, match="is the limit"):
        so.to_scipy(vast, layout)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.sampled_from(LAYOUTS))
def test_any_matrix(seed, rows, columns, layout):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, rows * columns + 1))
    places = rng.integers(0, rows, count), rng.integers(0, columns, count)
    entries = scipy.sparse.coo_array((rng.standard_normal(count), places), shape=(rows, columns))
    sparse = so.from_scipy(entries.asformat(layout), "w")
    np.testing.assert_allclose(dense_of(sparse), entries.toarray())
    np.testing.assert_array_equal(so.to_scipy(sparse, layout).toarray(), dense_of(sparse))
