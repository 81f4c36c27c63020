from __future__ import annotations

from pathlib import Path

import pytest

import structopt_onnx as so

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def report():
    data = MODELS / "digits_mlp_calibration.npz"
    return so.optimize(
        MODELS / "digits_mlp.onnx",
        max_error=0.05,
        calibration=data,
        minimize="parameters",
        benchmark=False,
    ).report


def test_other_budgets_cost_less_for_more_error(report):
    offered = report.plan.curve.offered
    assert len(offered) >= 4
    assert offered[0].predicted == 0
    assert offered[0].cost.parameters == report.before.cost.parameters
    assert [p.predicted for p in offered] == sorted(p.predicted for p in offered)
    left = [p.cost.parameters for p in offered]
    assert left == sorted(left, reverse=True)
    assert all(point.measured is None for point in offered)


def test_the_plan_kept_is_among_those_tried(report):
    tried = report.plan.curve.tried
    assert len(tried) == report.plan.rounds
    kept = [point for point in tried if point.cost.parameters == report.after.cost.parameters]
    assert kept
    assert report.plan.summed in [point.predicted for point in kept]


def test_what_only_explains_has_no_curve():
    data = MODELS / "digits_mlp_calibration.npz"
    found = so.explain(MODELS / "digits_mlp.onnx", max_error=0.05, calibration=data)
    assert found.plan.curve is None
