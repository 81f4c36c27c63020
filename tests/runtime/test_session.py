"""A session says what the model takes, runs it, and turns every failure into one clear line."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.errors import DataError, ModelError, UsageError
from structopt_onnx.runtime import serialized
from structopt_onnx.runtime.session import Session

AFFINE = """
<ir_version: 9, opset_import: ["": 19]>
affine (float[N, 3] x, float bias) => (float[N, 3] y)
<float[3] scale = {1, 2, 3}, float bias = {10}>
{
    scaled = Mul(x, scale)
    y = Add(scaled, bias)
}
"""


def proto(text):
    return onnx.parser.parse_model(text)


def in_memory(text):
    return ir.from_proto(proto(text))


@pytest.fixture
def x():
    return np.arange(6, dtype=np.float32).reshape(2, 3)


def test_path_bytes_and_model_in_memory_give_the_same(tmp_path, x):
    path = tmp_path / "affine.onnx"
    onnx.save(proto(AFFINE), path)
    for source in (path, path.read_bytes(), in_memory(AFFINE)):
        session = Session(source)
        np.testing.assert_array_equal(session.run({"x": x})["y"], x * [1, 2, 3] + 10)


def test_inputs_are_told_from_overridable_initializers(x):
    session = Session(in_memory(AFFINE))
    (info,) = session.inputs
    assert (info.name, info.dtype, info.shape) == ("x", np.float32, ("N", 3))
    assert str(info) == "x: float32[N,3]"
    assert [info.name for info in session.overridable] == ["bias"]
    y = session.run({"x": x, "bias": np.zeros((), np.float32)})["y"]
    np.testing.assert_array_equal(y, x * [1, 2, 3])


def test_any_value_of_a_model_in_memory_can_be_an_output(x):
    model = in_memory(AFFINE)
    session = Session(model, outputs=["scaled"])
    assert list(session.run({"x": x})) == ["scaled"]
    np.testing.assert_array_equal(session.run({"x": x})["scaled"], x * [1, 2, 3])
    assert [output.name for output in model.graph.outputs] == ["y"]


def test_unknown_output_is_refused():
    with pytest.raises(ModelError, match=r"model 'affine': no output named 'q'; it has y"):
        Session(in_memory(AFFINE), outputs=["q"])


def test_optimize_decides_whether_nodes_are_removed(tmp_path, x):
    text = AFFINE.replace("Add(scaled, bias)", "Identity(twice)").replace(
        "scaled = ", "once = Identity(x)\n twice = "
    )
    for optimize, expected in ((False, 3), (True, 1)):
        session = Session(
            in_memory(text), optimize=optimize, profile_prefix=tmp_path / f"{optimize}"
        )
        session.run({"x": x})
        events = json.loads(session.end_profiling().read_text())
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        assert len(kernels) == expected


def test_strings_and_sequences_pass():
    session = Session(
        in_memory("""
        <ir_version: 9, opset_import: ["": 19]>
        mixed (float[N] x, string[M] s) => (seq(float[N]) q, string[M] t)
        { q = SequenceConstruct(x, x)  t = Identity(s) }
        """)
    )
    assert [str(info) for info in session.outputs] == ["q: seq(tensor(float))", "t: string[M]"]
    assert session.outputs[0].dtype is None
    x = np.ones(2, np.float32)
    outputs = session.run({"x": x, "s": np.array(["a", "bc"], dtype=object)})
    assert [part.tolist() for part in outputs["q"]] == [[1, 1], [1, 1]]
    assert outputs["t"].tolist() == ["a", "bc"]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float16"])
def test_small_floats_pass_unchanged(name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    text = name.replace("_", "")
    session = Session(
        in_memory(f"""
        <ir_version: 9, opset_import: ["": 19]>
        same ({text}[N, 2] x) => ({text}[N, 2] y) {{ y = Identity(x) }}
        """)
    )
    assert session.inputs[0].dtype == dtype
    x = np.array([[1, 2], [-0.5, 0.25]], dtype=dtype)
    y = session.run({"x": x})["y"]
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float32), x.astype(np.float32))


def test_large_model_goes_through_a_file(monkeypatch, x):
    monkeypatch.setattr(serialized, "_LARGE_BYTES", 0)
    weight = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    model = in_memory(AFFINE.replace("Mul(x, scale)", "Mul(x, scale)\n wide = MatMul(x, weight)"))
    value = ir.Value(name="weight", const_value=ir.tensor(weight, name="weight"))
    model.graph.register_initializer(value)
    next(node for node in model.graph if node.op_type == "MatMul").replace_input_with(1, value)
    outputs = Session(model, outputs=["y", "wide"]).run({"x": x})
    np.testing.assert_array_equal(outputs["y"], x * [1, 2, 3] + 10)
    np.testing.assert_allclose(outputs["wide"], x @ weight)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"no data for x: float32\[N,3\]"),
        ({"x": np.zeros((2, 3))}, r"input x: float32\[N,3\] can't take float64\[2,3\]"),
        ({"x": np.zeros(3, np.float32)}, r"can't take float32\[3\]"),
        ({"x": np.zeros((2, 4), np.float32)}, r"can't take float32\[2,4\]"),
        (
            {"x": np.zeros((2, 3), np.float32), "z": np.zeros(1)},
            r"no input named 'z'; expected x: float32\[N,3\]",
        ),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feeds, message):
    with pytest.raises(DataError, match=r"model 'affine': .*" + message):
        Session(in_memory(AFFINE)).run(feeds)


def test_failure_while_running_names_the_model():
    session = Session(
        in_memory("""
        <ir_version: 9, opset_import: ["": 19]>
        pick (float[N] x, int64[M] ids) => (float[M] y) { y = Gather(x, ids) }
        """)
    )
    with pytest.raises(ModelError, match=r"model 'pick': onnxruntime can't run it: .*Gather"):
        session.run({"x": np.zeros(2, np.float32), "ids": np.array([7])})


def test_missing_and_broken_files_are_named(tmp_path):
    missing = tmp_path / "missing.onnx"
    with pytest.raises(ModelError, match=r"missing\.onnx: no such model file"):
        Session(missing)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx: onnxruntime can't load it: .*INVALID"):
        Session(broken)
    with pytest.raises(ModelError, match=r"model of 0 bytes: onnxruntime can't load it"):
        Session(b"")


def test_unknown_operator_asks_for_its_library():
    text = AFFINE.replace("Add(", "acme.Add(").replace('["": 19]', '["": 19, "acme": 1]')
    with pytest.raises(ModelError, match=r"acme:Add.*--ort-library"):
        Session(proto(text).SerializeToString())


def test_wrong_library_is_a_usage_error(tmp_path):
    library = tmp_path / "custom.so"
    with pytest.raises(UsageError, match=r"custom\.so: not a library of custom operators"):
        Session(in_memory(AFFINE), libraries=[library])


def test_thread_count_must_be_positive():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        Session(in_memory(AFFINE), threads=0)
