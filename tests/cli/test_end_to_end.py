from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from structopt_onnx.cli import main

MODELS = Path(__file__).parents[2] / "models"
CNN = MODELS / "digits_cnn.onnx"
DATA = MODELS / "digits_cnn_calibration.npz"
TEST = MODELS / "digits_cnn_test.npz"
LOSSY = ["--calibration", str(DATA), "--max-error", "0.05", "--no-benchmark"]


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def optimized(tmp_path_factory) -> tuple[Path, dict]:
    """The digits CNN within an error of 0.05, and the report on it."""
    folder = tmp_path_factory.mktemp("optimized")
    path, report = folder / "out.onnx", folder / "report.json"
    assert main(["optimize", str(CNN), str(path), *LOSSY, "-q", "--report", str(report)]) == 0
    return path, json.loads(report.read_text())


def test_optimize_does_its_whole_job(optimized):
    path, report = optimized
    onnx.checker.check_model(path, full_check=True)
    assert report["plan"]["final_error"] <= 0.05
    assert report["validation"]["passed"] is True
    assert report["after"]["file_bytes"] == path.stat().st_size < CNN.stat().st_size / 2
    assert report["after"]["cost"]["macs"] < report["before"]["cost"]["macs"]
    steps = {a["step"] for a in report["applied"] if a["option"]}
    assert "factor-matmul" in steps <= {"factor-matmul", "factor-conv", "refit"}
    assert report["options"]["max_error"] == 0.05


def test_the_same_command_gives_the_same_bytes_and_report(optimized, tmp_path, run):
    path, report = optimized
    before = path.read_bytes()
    done = run("optimize", CNN, path, *LOSSY, "--json")
    again = json.loads(done.out)
    assert path.read_bytes() == before
    del again["seconds"]
    assert again == {key: value for key, value in report.items() if key != "seconds"}
    assert not list(tmp_path.iterdir())


def test_a_metric_from_a_file_gates_what_is_done(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        f"LABELS = np.load({str(MODELS / 'digits_labels.npz')!r})['calibration']\n"
        "def top1(run, samples):\n"
        "    found = [run(feeds)['logits'].argmax() for feeds in samples]\n"
        "    return np.mean(found == LABELS[samples.indices])\n"
    )
    words = ["--calibration", DATA, "--no-benchmark", "--json"]
    budgets = ["--metric", "mine.py:top1", "--max-drop", "0.02", "--keep", "parameters=0.3"]
    done = run("optimize", CNN, "out.onnx", *words, *budgets)
    assert done.code == 0
    report = json.loads(done.out)
    metric, keep = report["plan"]["metric"], report["plan"]["keep"]
    assert metric["name"] == "mine.py:top1"
    assert metric["drop"] == pytest.approx(metric["final_original"] - metric["final"])
    assert metric["drop"] <= 0.02
    assert 0 < keep["reached"] <= 0.3
    assert report["plan"]["budget"] is None
    assert report["options"]["keep"] == "parameters=0.3"


def test_a_pipe_gets_json_and_nothing_else(tmp_path):
    words = ["optimize", str(CNN), str(tmp_path / "out.onnx"), "--no-benchmark", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "structopt_onnx", *words], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["output"] == str(tmp_path / "out.onnx")


def test_a_model_can_be_optimized_in_place(tmp_path, run):
    path = shutil.copy(CNN, tmp_path / "model.onnx")
    assert run("optimize", path, path, *LOSSY).code == 0
    assert path.stat().st_size < CNN.stat().st_size / 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_validate_passes_within_the_budget_and_fails_without_it(optimized, run):
    path, _ = optimized
    passed = run("validate", CNN, path, "--data", TEST, "--max-error", "0.05")
    assert passed.code == 0
    assert ": passed on 360 samples" in unwrapped(passed.out)
    failed = run("validate", CNN, path, "--data", TEST)
    assert failed.code == 1
    assert ": FAILED on 360 samples" in unwrapped(failed.out)
    assert ", by factor-" in unwrapped(failed.out)
    verdict = json.loads(run("validate", CNN, path, "--data", TEST, "--no-drift", "--json").out)
    assert verdict["passed"] is False
    assert verdict["drift"] is None


def test_validate_counts_quanta_and_asks_the_reference_evaluator(tmp_path, run):
    def written(name, nodes, opset):
        head = f'<ir_version: 9, opset_import: ["": {opset}]> g (float[4] x) => (float[4] y)'
        weights = "<float s = {0.25}, int8 z = {0}, float off = {0.75}>"
        path = tmp_path / f"{name}.onnx"
        onnx.save(onnx.parser.parse_model(f"{head} {weights} {{ {nodes} }}"), path)
        return path

    qdq = "q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z)"
    model = written("model", "y = Identity(x)", 21)
    right = written("right", f"m = Identity(x) {qdq}", 21)
    wrong = written("wrong", f"m = Add(x, off) {qdq}", 21)
    older = written("older", f"m = Identity(x) {qdq}", 17)
    data = tmp_path / "data.npz"
    np.savez(data, x=np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4))
    options = ["--data", data, "--quanta", "1", "--reference"]
    passed = run("validate", model, right, *options)
    assert passed.code == 0
    assert "quanta of 1" in passed.out
    assert "reference evaluator: passed on 3 samples" in passed.out
    failed = run("validate", model, wrong, *options)
    assert failed.code == 1
    assert "over the limit 1" in unwrapped(failed.out)
    assert "in the reference evaluator: output 'y': off by" in unwrapped(failed.out)
    assert "reference evaluator: not run (" in run("validate", model, older, *options).out
    assert run("validate", model, model, *options).code == 2


def test_explain_writes_nothing(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    done = run("explain", CNN, "--calibration", DATA)
    assert done.code == 0
    assert "nothing was written" in done.out
    assert "6.weight" in done.out
    assert not list(tmp_path.iterdir())
    report = json.loads(run("explain", CNN, "--json").out)
    assert report["output"] is None
    assert report["validation"] is None


def test_inspect_tells_what_a_model_is_made_of(run):
    done = run("inspect", CNN)
    assert done.code == 0
    assert "71,754 parameters" in done.out
    assert "2 Conv" in done.out
    assert "made-up sizes of the dimensions that the model leaves open" in unwrapped(done.out)
    assert "made-up" not in run("inspect", CNN, "--data", DATA).out
    found = json.loads(run("inspect", CNN, "--json").out)
    assert found["cost"]["parameters"] == 71754
    assert found["operators"]["Conv"] == 2


def test_benchmark_measures_one_model(run):
    done = run("benchmark", CNN, "--seconds", "5", "--data", DATA, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["verdict"] == "not measured"
    assert found["a"]["peak_rss_bytes"] > 0


def test_benchmark_of_models_with_other_inputs_says_so(run):
    other = MODELS / "digits_mlp.onnx"
    done = run("benchmark", CNN, other, "--seconds", "5")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"error: {other}: can't be measured on the inputs of {CNN}: input ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [["optimize", CNN, "-"], ["densify", CNN, "-"]])
def test_a_model_is_not_written_to_a_file_named_dash(tmp_path, monkeypatch, run, words):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: -: a model is not written to standard output")
    assert list(tmp_path.iterdir()) == []


def test_densify_makes_sparse_tensors_dense(tmp_path, run):
    target = tmp_path / "dense.onnx"
    done = run("densify", MODELS / "sparse_linear_regression.onnx", target)
    assert done.code == 0
    assert "1 sparse tensor made dense" in unwrapped(done.out)
    assert not onnx.load(target).graph.sparse_initializer


def test_a_model_that_is_none_ends_with_3_and_leaves_the_target_alone(tmp_path, run):
    broken, target = tmp_path / "broken.onnx", tmp_path / "out.onnx"
    broken.write_bytes(CNN.read_bytes()[:1000])
    target.write_bytes(b"before")
    for words in (["optimize", broken, target], ["optimize", tmp_path / "missing.onnx", target]):
        done = run(*words)
        assert done.code == 3
        assert done.err.startswith(f"error: {words[1]}: ")
        assert done.err.count("\n") == 1
    assert target.read_bytes() == b"before"
    for words in (["inspect", broken], ["validate", CNN, broken], ["benchmark", broken]):
        assert run(*words).code == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--passes", "normalize,frob"], 2, "\n  normalize,frob\n            ^\n"),
        (["--passes", "factor-matmul{rank=3}"], 2, "\n" + " " * 16 + "^\n"),
        (["--target", "moon"], 2, "--target is one of cpu"),
        (["--max-error", "-1"], 2, "--max-error is"),
        (["--max-error", "nan"], 2, "--max-error is"),
        (["--max-drop", "0.1"], 2, "--max-drop needs --metric"),
        (["--metric", "agreement"], 2, "--metric needs --max-drop"),
        (["--metric", "absent.py:f", "--max-drop", "0.1"], 2, "no file absent.py"),
        (["--keep", "macs=2"], 2, "--keep is a share over 0 and at most 1"),
        (["--keep", "size=0.5"], 2, "--keep names one of time, bytes, macs, parameters"),
        (["--keep", "macs=0.5", "--minimize", "bytes"], 2, "--keep says that macs must fall"),
        (["--calibration", "missing.npz"], 3, "missing.npz"),
        (["--calibration", "no_such_module:make"], 2, "no_such_module"),
    ],
)
def test_wrong_options_are_explained(tmp_path, run, words, code, said):
    target = tmp_path / "out.onnx"
    done = run("optimize", CNN, target, "--no-benchmark", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert not target.exists()


def test_data_for_another_model_ends_with_3(tmp_path, run):
    np.savez(tmp_path / "other.npz", y=np.zeros((3, 7), np.float32))
    done = run("optimize", CNN, tmp_path / "o.onnx", "--calibration", tmp_path / "other.npz")
    assert done.code == 3
    assert "other.npz" in done.err
    assert "[" in done.err
    assert done.err.count("\n") == 1
