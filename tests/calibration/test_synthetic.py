from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.calibration.synthetic import synthetic_samples
from structopt_onnx.errors import DataError
from structopt_onnx.runtime.session import Session, TensorInfo

HEAD = '<ir_version: 9, opset_import: ["": 17, "my": 1, "ai.onnx.ml": 3]>\n'


def model_of(text):
    return ir.from_onnx_text(HEAD + text)


def run_on(model, **options):
    session = Session(model)
    samples = synthetic_samples(model, session.inputs, run=session.run, **options)
    for feeds in samples:
        session.run(feeds)
    return samples


def test_one_symbol_is_one_size_and_takes_several():
    model = model_of("""
        g (float[batch, T] x, float[T, batch] z) => (float[batch, batch] y) { y = MatMul(x, z) }""")
    samples = run_on(model)
    shapes = [(feed["x"].shape, feed["z"].shape) for feed in samples]
    assert all(x == z[::-1] for x, z in shapes)
    assert len({x[0] for x, _ in shapes}) == 3
    assert len({x[1] for x, _ in shapes}) == 3


def test_unnamed_dimensions_are_tried_equal_first():
    model = model_of("g (float[?, ?] x, float[?, ?] z) => (float[?, ?] y) { y = Add(x, z) }")
    assert len({feed["x"].shape for feed in run_on(model)}) >= 3


def test_sizes_that_do_not_run_are_replaced():
    ran = []

    def run(feeds):
        ran.append(feeds["x"].shape)
        if feeds["x"].shape[1] != 576:
            raise RuntimeError("only 576 columns")

    plain = model_of("g (float[N, T] x) => (float[N, T] y) { y = Neg(x) }")
    inputs = [TensorInfo("x", np.dtype(np.float32), ("N", "T"), "tensor(float)")]
    samples = synthetic_samples(plain, inputs, run=run)
    assert {feed["x"].shape[1] for feed in samples} == {576}
    assert {feed["x"].shape[0] for feed in samples} == {1, 2, 3}
    assert len(ran) < 60


def test_dimensions_that_differ_from_each_other_are_found():
    def run(feeds):
        if feeds["x"].shape[1:] != (48, 4):
            raise RuntimeError("only 48 x 4")

    model = model_of("g (float[N, A, B] x) => (float[N, A, B] y) { y = Neg(x) }")
    inputs = [TensorInfo("x", np.dtype(np.float32), ("N", "A", "B"), "tensor(float)")]
    samples = synthetic_samples(model, inputs, run=run)
    assert {feed["x"].shape[1:] for feed in samples} == {(48, 4)}


def test_nothing_that_runs_is_an_error_that_says_what_to_do():
    def run(feeds):
        raise RuntimeError("never\nsecond line")

    model = model_of("g (float[N, T] x) => (float[N, T] y) { y = Neg(x) }")
    inputs = [TensorInfo("x", np.dtype(np.float32), ("N", "T"), "tensor(float)")]
    with pytest.raises(
        DataError, match=r"last: never.*pass real inputs with --calibration"
    ) as caught:
        synthetic_samples(model, inputs, run=run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16,
        np.float32,
        np.float64,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        ml_dtypes.int4,
        ml_dtypes.uint4,
        np.bool_,
        np.complex64,
    ],
)
def test_every_element_type_is_made(dtype):
    model = model_of("g (float[N, T] x) => (float[N, T] y) { y = Neg(x) }")
    element = ir.DataType.from_numpy(np.dtype(dtype))
    inputs = [TensorInfo("x", np.dtype(dtype), ("N", "T"), f"tensor({element.name.lower()})")]
    samples = synthetic_samples(model, inputs, count=4)
    for feed in samples:
        assert feed["x"].dtype == dtype
        assert len(np.unique(feed["x"].astype(np.complex128))) > 1
    assert len({feed["x"].shape for feed in samples}) >= 3


def test_strings_are_made_and_run():
    model = model_of(
        "g (string[N] s, string[N] t) => (string[N] y, string[N] z) "
        "{ y = Identity(s) z = Identity(t) }"
    )
    assert all(isinstance(text, str) for feed in run_on(model) for text in feed["s"])
    model = model_of("""
        g (string[N] s) => (int64[N] y)
        { y = ai.onnx.ml.LabelEncoder<keys_strings = ["cat", "dog"], values_int64s = [1, 2]>(s) }
        """)
    assert {text for feed in run_on(model) for text in feed["s"].tolist()} == {"cat", "dog"}


def test_fixed_shapes_and_models_without_inputs():
    model = model_of("g (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }")
    samples = run_on(model)
    assert {feed["x"].shape for feed in samples} == {(2, 3)}
    assert len({feed["x"].tobytes() for feed in samples}) == len(samples)
    model = model_of("g () => (float[1] y) <float[1] w = {1}> { y = Neg(w) }")
    assert list(run_on(model, count=2)) == [{}, {}]


def test_reruns_are_identical_and_seeds_differ():
    model = model_of("""
        g (float[N, T] x, int64[N, T] ids, bool[N] b) => (float[N, T] y, float[N, T] z, bool[N] c)
        <float[9] table = {0,1,2,3,4,5,6,7,8}>
        { y = Neg(x) z = Gather(table, ids) c = Not(b) }""")

    def content(seed):
        return [
            (name, a.shape, a.tobytes()) for f in run_on(model, seed=seed) for name, a in f.items()
        ]

    assert content(1) == content(1)
    assert content(1) != content(2)


def test_made_up_samples_say_so_and_can_be_split():
    model = model_of("g (float[N, T] x) => (float[N, T] y) { y = Neg(x) }")
    samples = run_on(model)
    assert samples.synthetic
    assert samples.origin == "synthetic"
    parts = samples.split()
    assert all(part.synthetic and len(part) for part in parts)
    assert not any(part.blocked for part in parts)


def test_sequences_cannot_be_made_up():
    model = model_of("g (seq(float[N]) x) => (float[N] y) <int64 i = {0}> { y = SequenceAt(x, i) }")
    inputs = [TensorInfo("x", None, (), "seq(tensor(float))")]
    with pytest.raises(DataError, match="only tensors can be made up or fed"):
        synthetic_samples(model, inputs)
