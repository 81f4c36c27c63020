from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.calibration.paired import Pair, paired_moments
from structopt_onnx.calibration.paired_rows import paired_rows
from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.runtime.session import Session

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[n, 3] x) => (float[n, m] y) {{
  h = {first}(x)
  y = {second}(h)
}}
"""


def model(first: str, second: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(TEXT.format(first=first, second=second)))


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.normal(size=(n, 3)).astype(np.float32)} for n in (4, 1, 7)]
    return load_samples(feeds, Session(model("Relu", "Neg")).inputs)


def test_both_models_are_seen_side_by_side(samples):
    pair = Pair(Statistic(("h",), -1), Statistic(("y",), 1))
    moments = dict(paired_moments(model("Relu", "Neg"), model("Abs", "Neg"), samples, [pair]))[pair]
    x = np.concatenate([feeds["x"] for feeds in samples]).astype(np.float64)
    both = np.concatenate([np.maximum(x, 0), -np.abs(x)], axis=1)
    assert moments.count == 12
    np.testing.assert_allclose(moments.mean, both.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(both.T, bias=True), atol=1e-12)


def test_an_input_needs_no_run_to_be_read(samples):
    pair = Pair(Statistic(("x",), -1), Statistic(("h",), -1))
    moments = dict(paired_moments(model("Relu", "Neg"), model("Abs", "Neg"), samples, [pair]))[pair]
    x = np.concatenate([feeds["x"] for feeds in samples]).astype(np.float64)
    np.testing.assert_allclose(moments.mean, [*x.mean(axis=0), *np.abs(x).mean(axis=0)], atol=1e-7)


def test_what_cannot_be_paired_is_left_out(samples):
    good = Pair(Statistic(("h",), -1), Statistic(("h",), -1))
    crossed = Pair(Statistic(("h",), 0), Statistic(("h",), -1))
    endless = Pair(Statistic(("y",), -1), Statistic(("h",), -1))
    found = paired_moments(
        model("Neg", "Log"), model("Abs", "Neg"), samples, [crossed, good, endless]
    )
    assert [pair for pair, _ in found] == [good]


def test_single_observations_are_kept_up_to_a_number(samples):
    pair = Pair(Statistic(("h",), -1), Statistic(("y",), 1))
    run = model("Relu", "Neg"), model("Abs", "Neg"), samples
    x = np.concatenate([feeds["x"] for feeds in samples])
    both = np.concatenate([np.maximum(x, 0), -np.abs(x)], axis=1)
    everything = paired_rows(*run, {pair: 300})[pair]
    np.testing.assert_array_equal(everything, both)
    some = paired_rows(*run, {pair: 6}, seed=1)[pair]
    # Two of each sample at most, and one sample has one alone.
    assert some.shape == (5, 6)
    assert some.dtype == np.float32
    assert {tuple(row) for row in some} < {tuple(row) for row in both}
    np.testing.assert_array_equal(paired_rows(*run, {pair: 6}, seed=1)[pair], some)
    assert not np.array_equal(paired_rows(*run, {pair: 6}, seed=2)[pair], some)


def test_observations_that_cannot_be_paired_are_left_out(samples):
    good = Pair(Statistic(("h",), -1), Statistic(("h",), -1))
    endless = Pair(Statistic(("y",), -1), Statistic(("h",), -1))
    found = paired_rows(model("Neg", "Log"), model("Abs", "Neg"), samples, {endless: 9, good: 9})
    assert list(found) == [good]
