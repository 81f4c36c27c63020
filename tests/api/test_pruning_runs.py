from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import structopt_onnx as so
from structopt_onnx.api.bench import prepare
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.passes.sparsity.decode_sparse import DecodeSparse
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget

_MODELS = Path(__file__).resolve().parents[2] / "models"
_PRUNING = "prune-weights,encode-sparse"


def prune(name: str, passes: str | None = _PRUNING, **options) -> so.Result:
    options = {"minimize": "bytes", "benchmark": False} | options
    return so.optimize(
        _MODELS / f"{name}.onnx",
        calibration=_MODELS / f"{name}_calibration.npz",
        passes=passes,
        **options,
    )


def weights(result: so.Result) -> dict[str, np.ndarray]:
    """Return the weights once they are decoded."""
    model = PassManager(CpuTarget()).run(result.model.clone(), [DecodeSparse()])
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def zeros(result: so.Result) -> dict[str, float]:
    return {n: float(np.mean(a == 0)) for n, a in weights(result).items() if a.size > 1000}


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn"])
def test_zeros_are_where_the_plan_puts_them(name):
    result = prune(name, max_error=0.05)
    report = result.report
    chosen = {site.weights[0]: site.chosen for site in report.plan.sites if site.chosen}
    assert len(chosen) > 1
    found = zeros(result)
    for weight, label in chosen.items():
        assert label.endswith("% zeros")
        assert found[weight] == pytest.approx(int(label.split("%")[0]) / 100, abs=2e-3)
    assert not any(share for weight, share in found.items() if weight not in chosen)
    assert report.after.file_bytes < 0.5 * report.before.file_bytes
    assert 0 < report.plan.final_error <= 0.05
    assert report.validation.passed


def test_zeros_are_chosen_beside_ranks_where_they_save_more():
    report = prune("digits_mlp", f"factor-matmul,{_PRUNING}", max_error=0.05).report
    steps = [entry.step for entry in report.applied]
    assert {"factor-matmul", "prune-weights", "encode-sparse"} == set(steps) - {"refit"}
    ranks = prune("digits_mlp", "factor-matmul", max_error=0.05).report
    assert report.after.file_bytes < ranks.after.file_bytes
    assert report.plan.final_error <= 0.05


def test_a_model_comes_down_to_its_share_of_bytes_once_it_is_encoded():
    report = prune("digits_mlp", keep="bytes=0.4").report
    assert 0.35 < report.plan.keep.reached <= 0.4
    assert report.after.cost.bytes <= 0.4 * report.before.cost.bytes
    assert report.after.cost.macs == report.before.cost.macs


def test_without_the_encoder_zeros_bring_no_bytes_down():
    report = prune("digits_mlp", "prune-weights", keep="bytes=0.4").report
    assert not any(entry.option for entry in report.applied)
    assert "nothing lossy kept" in " ".join(str(report).split())


@pytest.mark.parametrize("minimize", ["time", "macs", "parameters"])
def test_zeros_are_not_offered_where_they_save_nothing(minimize):
    options = OptimizeOptions(minimize=minimize, max_error=0.05)
    bench = prepare(_MODELS / "digits_mlp.onnx", options, None, lambda _: None)
    assert "prune-weights" not in {step.name for step in bench.lossy_steps}
    report = prune("digits_mlp", minimize=minimize, max_error=0.05).report
    assert not report.applied
    assert "prune-weights was left out: it lowers bytes" in " ".join(str(report).split())


def test_layers_are_pruned_by_name():
    found = zeros(prune("digits_mlp", max_error=0.05, skip=("2.weight",)))
    assert found["2.weight"] == 0
    assert found["0.weight"] > 0


def test_runs_of_a_row_hold_the_pattern():
    result = prune("digits_mlp", "prune-weights{pattern=2:4},encode-sparse", max_error=0.2)
    runs = weights(result)["2.weight"].reshape(-1, 4)
    assert (np.count_nonzero(runs, axis=1) == 2).all()


def test_fewer_channels_are_less_time_and_the_last_layer_is_refitted():
    report = prune("digits_mlp", "prune-channels", minimize="time", max_error=0.05).report
    (chosen,) = [site for site in report.plan.sites if site.chosen]
    assert chosen.chosen.endswith("of 256 channels")
    assert report.after.cost.macs < 0.7 * report.before.cost.macs
    assert report.after.cost.nodes == report.before.cost.nodes
    assert report.plan.refit.kept == 1
    assert report.plan.refit.after < 0.5 * report.plan.refit.before
    assert 0 < report.plan.final_error <= 0.05
