"""Models of each front end: exact passes keep their outputs, lossy ones their budget.

torch and scikit-learn are tried where they are installed, graphs in the style of MXNet's and CNTK's
exporters always, the heavy rest with `--front-ends`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
sys.path.insert(0, BENCHMARKS)
front_ends = importlib.import_module("front_ends")
older_exporters = importlib.import_module("older_exporters")
sys.path.remove(BENCHMARKS)

LIGHT = ("torch-dynamo", "torch-script", "mxnet-style", "cntk-style")
LIGHT += ("sklearn-mlp", "sklearn-logistic", "sklearn-pipeline")
# What must fire: what each of these exporters is known to leave behind.
FIRES = {
    "torch-dynamo": {"fold-weight-layout", "simplify-recurrent-plumbing"},
    "torch-script": {"simplify-recurrent-plumbing"},
    "sklearn-mlp": {"remove-identities", "fold-constants"},
    "sklearn-logistic": set(),
    "sklearn-pipeline": {"remove-identities", "fold-constants"},
    "mxnet-style": {"fold-batchnorm"},
    "cntk-style": {"fold-weight-layout", "fold-affine"},
    "keras-tensorflow": {"simplify-recurrent-plumbing"},
    "keras-torch": {"reroll-recurrence", "merge-recurrent-input", "cancel-transposes"},
    "tensorflow": {"simplify-recurrent-plumbing"},
    "jax": {"cancel-transposes", "fold-affine"},
    "paddle": {"fold-batchnorm"},
}


def test_every_front_end_has_an_expectation():
    assert set(FIRES) == set(front_ends.FRONT_ENDS)


@pytest.mark.filterwarnings("ignore")  # of the front ends' own
@pytest.mark.parametrize("name", front_ends.FRONT_ENDS)
def test_a_model_of_the_front_end(name, tmp_path, request, monkeypatch):
    front_end = front_ends.FRONT_ENDS[name]
    if name not in LIGHT and not request.config.getoption("--front-ends"):
        pytest.skip("heavy: give --front-ends")
    if front_end.missing:
        required = os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1" and name in LIGHT
        assert not required, front_end.packages
        pytest.skip(f"needs {' '.join(front_end.packages)}")
    if name in LIGHT:
        found = front_ends.measure(front_end, tmp_path)
    else:  # in a process of its own: Keras is bound to one backend
        monkeypatch.syspath_prepend(BENCHMARKS)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(front_ends.measure, front_end, tmp_path).result()
    assert found.passed
    assert found.exported < 1e-5
    assert found.optimized < 1e-5
    assert found.error < 2 * front_ends.BUDGET  # on images that the budget was not met on
    assert {applied.step for applied in found.exact.applied} >= FIRES[name]
    assert found.exact.after.cost.nodes <= found.exact.before.cost.nodes


def test_what_is_not_installed_says_how_it_is(monkeypatch):
    missing = dataclasses.replace(front_ends.FRONT_ENDS["jax"], packages=("no_such_package",))
    monkeypatch.setitem(front_ends.FRONT_ENDS, "jax", missing)
    line = front_ends.row("jax")
    assert line.endswith("| not run: pip install no_such_package |")
    assert line.count("|") == len(front_ends.COLUMNS) + 1


@pytest.mark.parametrize("style", [older_exporters.mxnet_style, older_exporters.cntk_style])
def test_initializers_of_old_graphs_are_inputs_before_and_after(style, tmp_path):
    model, path = style(), tmp_path / "out.onnx"
    before = {tensor.name for tensor in model.graph.initializer}
    assert before < {value.name for value in model.graph.input}
    front_ends.so.optimize(model, path, benchmark=False)
    graph = onnx.load(path).graph
    listed = [value.name for value in graph.input]
    stored = {tensor.name for tensor in graph.initializer}
    assert [name for name in listed if name not in stored] == [model.graph.input[0].name]
    assert stored < set(listed)  # what the IR of that time asks for
    onnx.checker.check_model(onnx.load(path))


def test_difference_is_the_share_of_labels_that_differ(tmp_path):
    labels = front_ends.onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3] x) => (int64[N] label) { label = ArgMax<axis = 1, keepdims = 0>(x) }"""
    )
    onnx.save(labels, tmp_path / "labels.onnx")
    images = np.eye(3, dtype=np.float32)
    off = front_ends.difference(tmp_path / "labels.onnx", images, [np.array([0, 1, 0])])
    assert off == pytest.approx(1 / 3)
