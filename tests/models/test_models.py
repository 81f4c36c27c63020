from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
README = (MODELS / "README.md").read_text(encoding="utf-8")
SHIPPED = sorted(path.name for path in MODELS.glob("*.onnx"))
DIGITS = [name for name in SHIPPED if not name.startswith("sparse_")]
PARTS = ("calibration", "test")
TABLE_ROW = re.compile(
    r"^\| (?P<file>\w+\.onnx) \| .* \| (?P<bytes>\d+) \| (?P<opset>\d+) \| (?P<nodes>\d+)"
    r" \| (?P<metric>\w+) \| (?P<value>[\d.]+) \| (?P<n>\d+) \|$",
    re.MULTILINE,
)
STATED = {row["file"]: row for row in TABLE_ROW.finditer(README)}
SHA256 = dict(re.findall(r"^\| (\w+\.onnx) \| `([0-9a-f]{64})` \|$", README, re.MULTILINE))
# Roots of machines and registries, Python sources and tracebacks: none belongs in a model.
TRACES = re.compile(
    rb"/(?:home|root|tmp|usr|opt|work|Users)/|site-packages|\.py\b|File \"|https?://|pkg\.torch"
)


@pytest.fixture(scope="module")
def evaluate():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MODELS))
        yield importlib.import_module("evaluate")


def stored(name):
    with np.load(MODELS / name) as arrays:
        return dict(arrays)


def text_of(model):
    """Everything in `model` but the weights, whose bytes may spell anything."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    return bare.SerializeToString()


def test_the_readme_lists_exactly_the_shipped_models():
    assert len(SHIPPED) == 6
    assert sorted(STATED) == SHIPPED
    assert sorted(SHA256) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_file_is_valid_small_and_as_stated(name):
    path = MODELS / name
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert path.stat().st_size == int(STATED[name]["bytes"])
    assert path.stat().st_size < 1_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [
        ("", int(STATED[name]["opset"]))
    ]
    assert model.opset_import[0].version >= 17
    assert len(model.graph.node) == int(STATED[name]["nodes"])


@pytest.mark.parametrize("name", SHIPPED)
def test_file_holds_its_weights_and_no_trace_of_the_machine_that_made_it(name):
    model = onnx.load(MODELS / name, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert TRACES.search(text_of(model)) is None
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_a_trace_would_be_found():
    model = onnx.load(MODELS / "digits_mlp.onnx")
    model.graph.node[0].doc_string = 'File "/home/somebody/train.py", line 3'
    assert TRACES.search(text_of(model)) is not None


@pytest.mark.parametrize("name", SHIPPED)
def test_metric_on_the_test_part_is_as_stated(name, evaluate):
    task = Path(name).stem
    measure = evaluate.measure(task)
    assert measure.metric == STATED[name]["metric"]
    assert len(measure.expected) == int(STATED[name]["n"])
    # One digit may flip where another machine rounds differently.
    flip = 1.01 / len(measure.expected) if measure.metric == "accuracy" else 1e-3
    value = evaluate.metric(task, MODELS / name)
    assert value == pytest.approx(float(STATED[name]["value"]), abs=flip)


@pytest.mark.parametrize("name", SHIPPED)
def test_one_sample_gives_what_it_gives_in_the_batch(name, evaluate):
    session = evaluate.ort.InferenceSession(str(MODELS / name), providers=["CPUExecutionProvider"])
    x = stored(f"{Path(name).stem}_calibration.npz")["x"][:3]
    batch, single = session.run(None, {"x": x}), session.run(None, {"x": x[1:2]})
    for whole, one in zip(batch, single, strict=True):
        np.testing.assert_allclose(one, whole[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SHIPPED)
def test_data_fits_the_model_inputs(name, part):
    (graph_input,) = onnx.load(MODELS / name).graph.input
    arrays = stored(f"{Path(name).stem}_{part}.npz")
    assert list(arrays) == [graph_input.name]
    array = arrays[graph_input.name]
    batch, *rest = graph_input.type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert list(array.shape[1:]) == [axis.dim_value for axis in rest]
    assert array.dtype == np.float32
    assert np.isfinite(array).all()
    expected = stored("digits_labels.npz" if name in DIGITS else f"{Path(name).stem}_targets.npz")
    assert len(expected[part]) == len(array)


@pytest.mark.parametrize("name", DIGITS)
def test_calibration_and_test_share_no_sample(name):
    drawn = {part: stored(f"{Path(name).stem}_{part}.npz")["x"] for part in PARTS}
    seen = {sample.tobytes() for sample in drawn["calibration"]}
    assert not any(sample.tobytes() in seen for sample in drawn["test"])


def test_the_split_is_stratified_and_shared_by_the_digits_models():
    labels = stored("digits_labels.npz")
    assert {part: len(labels[part]) for part in labels} == {
        "train": 1078,
        "calibration": 359,
        "test": 360,
    }
    shares = np.array([np.bincount(labels[part]) / len(labels[part]) for part in labels])
    assert np.ptp(shares, axis=0).max() < 0.005
    for part in PARTS:
        flat = [
            stored(f"digits_{kind}_{part}.npz")["x"].reshape(-1, 64)
            for kind in ("mlp", "cnn", "gru")
        ]
        np.testing.assert_array_equal(flat[0], flat[1])
        np.testing.assert_array_equal(flat[0], flat[2])


def test_regression_weights_arrive_sparse_and_run_as_their_dense_form(evaluate):
    path = MODELS / "sparse_linear_regression.onnx"
    graph = onnx.load(path).graph
    (sparse,) = graph.sparse_initializer
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    assert indices.dtype == np.int64
    assert list(sparse.dims) == [285, 1]
    assert len(values) == len(indices) == 18
    dense = np.zeros((285, 1), np.float32)
    dense[indices, 0] = values
    (bias,) = (onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer)
    (prediction,) = evaluate.run("sparse_linear_regression", path)
    x = stored("sparse_linear_regression_test.npz")["x"]
    np.testing.assert_allclose(prediction, x @ dense + bias, rtol=1e-5)


def test_the_rnn_is_unrolled_on_shared_weights_with_an_output_at_each_step():
    graph = onnx.load(MODELS / "simple_rnn_unrolled.onnx").graph
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    assert len(gemms) == 19  # the last step needs no next hidden state
    assert {node.input[1] for node in gemms} == {"i2h.weight", "i2o.weight"}
    assert [output.name for output in graph.output] == [
        f"log_probabilities_{step}" for step in range(10)
    ]


def test_both_forms_of_the_factorization_are_built_and_agree(tmp_path, evaluate):
    value = {}
    for form, limit in (("dense", 41_000_000), ("factored", 2_300_000)):
        out = tmp_path / f"{form}.onnx"
        script = MODELS / "make_low_rank_factorization.py"
        subprocess.run([sys.executable, script, out, "--form", form], check=True)
        assert 0.9 * limit < out.stat().st_size < limit
        for part in PARTS:
            with np.load(tmp_path / f"{form}_{part}.npz") as arrays:
                assert arrays["user_ids"].dtype == np.int64
                assert len(np.unique(arrays["user_ids"])) == 200
        value[form] = evaluate.metric("low_rank_factorization", out)
    # The stated noise is 1 % of the matrix; factoring removes most of it.
    assert value["dense"] == pytest.approx(0.0099, abs=2e-4)
    assert value["factored"] == pytest.approx(0.0023, abs=2e-4)


def test_evaluate_prints_one_json_line_and_compares_with_the_original():
    path = MODELS / "digits_mlp.onnx"
    command = [sys.executable, MODELS / "evaluate.py", "digits_mlp", path, "--against", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = json.loads(done.stdout)
    assert line["name"] == "digits_mlp"
    assert line["metric"] == "accuracy"
    assert line["n"] == 360
    assert line["value"] == line["original"] > 0.95
    assert line["relative_l2"] == 0


def test_evaluate_names_a_missing_file(tmp_path):
    command = [sys.executable, MODELS / "evaluate.py", "digits_mlp", tmp_path / "gone.onnx"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "gone.onnx: no such file" in done.stderr
    assert "Traceback" not in done.stderr
