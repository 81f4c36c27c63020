from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from structopt_onnx.linalg.channels import channel_order, fitted_to

seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, outputs: int, channels: int, taps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = channels * taps
    mixing = rng.standard_normal((size, size)) * np.arange(1, size + 1) ** -0.5
    return rng.standard_normal((outputs, size)), mixing @ mixing.T + 0.05 * np.eye(size)


def places(channels: list[int], taps: int) -> list[int]:
    return [c * taps + t for c in channels for t in range(taps)]


def error(weight: np.ndarray, moment: np.ndarray, kept: list[int]) -> float:
    """Least squares by its definition, on rows that have this moment."""
    rows = np.linalg.cholesky(moment).T * np.sqrt(len(moment))
    made = rows @ weight.T
    found = np.linalg.lstsq(rows[:, kept], made, rcond=None)[0]
    return float(np.sum((made - rows[:, kept] @ found) ** 2) / len(moment))


@given(seeds, st.integers(1, 5), st.integers(1, 7), st.integers(1, 3))
def test_channels_go_in_the_order_of_what_they_add(seed, outputs, channels, taps):
    weight, moment = problem(seed, outputs, channels, taps)
    left, expected = list(range(channels)), []
    while len(left) > 1:
        without = {c: places([d for d in left if d != c], taps) for c in left}
        expected.append(min(left, key=lambda c: error(weight, moment, without[c])))
        left.remove(expected[-1])
    assert channel_order(weight, moment, taps, 1).tolist() == [*expected, *left]


@given(seeds, st.integers(1, 5), st.integers(2, 12), st.data())
def test_the_map_from_some_inputs_is_least_squares(seed, outputs, size, data):
    weight, moment = problem(seed, outputs, size, 1)
    kept = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    found = np.zeros_like(weight)
    found[:, kept] = fitted_to(weight, moment, kept)
    lost = weight - found
    least = error(weight, moment, kept)
    np.testing.assert_allclose(np.sum((lost @ moment) * lost), least, rtol=1e-6, atol=1e-9)


@given(seeds)
@settings(max_examples=5)
def test_several_go_at_once_where_there_are_many(seed):
    weight, moment = problem(seed, 20, 100, 1)
    order = channel_order(weight, moment, 1, 40)
    assert sorted(order.tolist()) == list(range(100))
    one_by_one = list(range(100))
    while len(one_by_one) > 40:
        # What the first of an order of those left is.
        part = np.array(one_by_one)
        inverse = np.linalg.inv(moment[np.ix_(part, part)])
        now = fitted_to(weight, moment, part)
        scores = np.sum(now**2, axis=0) / inverse.diagonal()
        one_by_one.pop(int(np.argmin(scores)))
    by_size = np.argsort(np.sum(weight**2, axis=0) * moment.diagonal())[60:]
    least = error(weight, moment, one_by_one)
    assert error(weight, moment, sorted(order[60:])) < 1.1 * least
    assert error(weight, moment, sorted(by_size)) > 1.1 * least


def test_a_channel_that_others_imply_goes_first():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 5))
    rows[:, 2] = 3 * rows[:, 0] - 2 * rows[:, 4]
    moment = rows.T @ rows / 500 + 1e-6 * np.eye(5)
    weight = rng.standard_normal((3, 5))
    weight[:, 2] = 100.0
    assert channel_order(weight, moment, 1, 4)[0] in {0, 2, 4}
    kept = channel_order(weight, moment, 1, 4)[1:]
    assert error(weight, moment, sorted(kept)) < 1e-4 * error(weight, moment, [2])
