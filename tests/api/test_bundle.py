"""What an app takes: fixed shapes, onnxruntime's format, required operators, a manifest."""

from __future__ import annotations

import hashlib
import importlib
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import structopt_onnx as so

NAMES = [
    "model.onnx",
    "model.ort",
    "model.with_runtime_opt.ort",
    "required_operators_and_types.config",
    "required_operators_and_types.with_runtime_opt.config",
]


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "app"
    return so.bundle(
        models / "digits_gru.onnx", folder, data=models / "digits_gru_test.npz"
    ), folder


def test_the_folder_holds_what_the_manifest_says(made):
    result, folder = made
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", *NAMES]
    assert [file["name"] for file in manifest["files"]] == NAMES
    for file in manifest["files"]:
        stored = (folder / file["name"]).read_bytes()
        assert file["bytes"] == len(stored)
        assert file["sha256"] == hashlib.sha256(stored).hexdigest()
    assert manifest["onnxruntime"] == ort.__version__
    assert manifest["schema"] == 1
    assert str(folder) not in json.dumps(manifest)
    assert [form.model for form in result.required] == ["model.ort", "model.with_runtime_opt.ort"]
    assert not any(form.added or form.removed for form in result.required)


def test_shapes_are_fixed_and_both_files_run(made, models):
    result, folder = made
    shape = onnx.load(folder / "model.onnx").graph.input[0].type.tensor_type.shape
    assert all(dim.HasField("dim_value") for dim in shape.dim)
    with np.load(models / "digits_gru_test.npz") as arrays:
        name, array = next(iter(arrays.items()))
    feed = {name: array[:1]}
    expected = ort.InferenceSession(models / "digits_gru.onnx").run(None, feed)[0]
    for name in ("model.ort", "model.with_runtime_opt.ort"):
        found = ort.InferenceSession(folder / name).run(None, feed)[0]
        assert np.allclose(found, expected, atol=1e-4)
        assert next(file.error for file in result.files if file.name == name) < 1e-5


def test_operators_are_those_of_the_model(made):
    result, folder = made
    for form, config in zip(result.required, NAMES[3:], strict=True):
        listed = (folder / config).read_text()
        assert "GRU" in {operator.name for operator in form.operators}
        assert all(operator.name in listed for operator in form.operators)


def test_the_difference_names_what_an_app_lacks(made, tmp_path):
    result, folder = made
    text = """
    <ir_version: 8, opset_import: ["": 17]> g (float[1,3] x) => (float[1,3] y) {
      a = Erf(x)  y = Softmax(a)
    }
    """
    path = tmp_path / "erf.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    before = tmp_path / "before.onnx"
    onnx.save(onnx.parser.parse_model(text.replace("Erf", "Tanh")), before)
    found = so.bundle(path, tmp_path / "app", before=before)
    for form in found.required:
        assert [str(operator) for operator in form.added] == ["ai.onnx:Erf, opset 13"]
        assert [operator.name for operator in form.removed] == ["Tanh"]
    # The list that an app's runtime was built with says the same as the model that it is of.
    again = so.bundle(path, tmp_path / "again", before=folder / NAMES[3])
    assert {operator.name for operator in again.required[0].added} == {"Erf", "Softmax"}
    assert again.required[0].removed == result.required[0].operators


def test_what_is_in_the_way_is_left_alone(models, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(so.UsageError, match="does not exist, or an empty one"):
        so.bundle(models / "digits_mlp.onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    bad = tmp_path / "bad.config"
    bad.write_text("nothing of the kind")
    with pytest.raises(so.UsageError, match="not a list of required operators"):
        so.bundle(models / "digits_mlp.onnx", tmp_path / "app", before=bad)
    assert not (tmp_path / "app").exists()


def test_a_file_that_gives_other_values_is_not_kept(models, tmp_path, monkeypatch):
    module = importlib.import_module("structopt_onnx.api.bundle")
    real = module.convert

    def spoilt(folder, libraries):
        real(folder, libraries)
        other = onnx.load(folder / "model.onnx")
        for tensor in other.graph.initializer:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 2, tensor.name)
            )
        onnx.save(other, folder / "model.onnx")

    monkeypatch.setattr(module, "convert", spoilt)
    with pytest.raises(so.ValidationFailed, match=r"model\.ort: output 'logits'"):
        so.bundle(models / "digits_mlp.onnx", tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_will_do_and_a_file_will_not(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    so.bundle(models / "digits_gru.onnx", ".")
    assert (tmp_path / "manifest.json").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(so.UsageError, match="can't be made"):
        so.bundle(models / "digits_gru.onnx", tmp_path / "file" / "app")
