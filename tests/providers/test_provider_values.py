from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.runtime.providers.placement import Placement
from structopt_onnx.runtime.providers.ran import Ran
from structopt_onnx.validation.provider_values import judge

Y = np.array([[1.0, -2.0, 3.0]], np.float32)
WHOLE = Placement({"Conv": 3}, {}, 1)


def ran(values, placement=WHOLE, **rest):
    return Ran(placement, [{"y": value} for value in values], "engine", **rest)


def test_right_values_on_all_nodes_are_executed():
    judged = judge(ran([Y, Y + np.float32(1e-4)]), [{"y": Y}] * 2, 1e-3)
    assert judged.status.text == "executed"
    assert judged.max_abs == pytest.approx(1e-4, rel=0.01)
    assert 0 < judged.relative_error < 1e-3


def test_a_simulator_is_never_called_a_device():
    judged = judge(ran([Y], Placement({"Conv": 2}, {"If": 1}), simulated=True), [{"y": Y}], 1e-3)
    assert (judged.status.text, judged.status.nodes, judged.status.of) == ("simulated", 2, 3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (Y * 1.1, "wrong values: output 'y': relative L2 error 0.1"),
        (np.full_like(Y, np.nan), "wrong values"),
        (np.zeros_like(Y), "wrong values"),
        (Y.T, "wrong values"),
        (Y.astype(np.float64), "wrong values"),
    ],
)
def test_other_values_are_unavailable(values, reason):
    judged = judge(ran([values]), [{"y": Y}], 1e-2)
    assert judged.status.kind == "unavailable"
    assert judged.status.reason.startswith(reason)
    assert (judged.max_abs, judged.relative_error) == (None, None)


def test_a_missing_output_is_wrong():
    found = Ran(WHOLE, [{"z": Y}], "engine")
    assert judge(found, [{"y": Y}], 1e-2).status.kind == "unavailable"


def test_nothing_to_compare_proves_nothing():
    empty = np.zeros((0, 3), np.float32)
    judged = judge(ran([empty]), [{"y": empty}], 1e-2)
    assert judged.status.text == "unavailable (no value to compare)"


def test_no_node_is_not_run_however_right_the_values():
    judged = judge(ran([Y], Placement({}, {"Conv": 3})), [{"y": Y}], 1e-2)
    assert judged.status.text == "unavailable (it took none of 3 nodes)"
