"""The interval covers at its nominal rate and the verdict needs both interval and effect."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from structopt_onnx.runtime.measuring import balanced_orders
from structopt_onnx.runtime.statistics import (
    RatioInterval,
    control_spread,
    decide,
    median_log_ratio,
    ratio_interval,
)

REPLICATES = 8
PAIRS = 30


def simulated(rng, slowdown, bias=0.006):
    """One comparison: medians of A/B and A/A per replicate, sessions biased as on real machines."""
    treated, control = [], []
    for _ in range(REPLICATES):
        level_a, level_b, level_c = np.exp(rng.normal(0, bias / math.sqrt(2), 3))
        # Interruptions only ever make a sample longer.
        noise = 1 + 0.01 * rng.exponential(size=(3, PAIRS)) * (1 + rng.poisson(0.3, (3, PAIRS)))
        times_a = level_a * noise[0]
        treated.append(median_log_ratio(times_a, slowdown * level_b * noise[1]))
        control.append(median_log_ratio(times_a, level_c * noise[2]))
    return ratio_interval(treated), control_spread(control)


def test_interval_misses_no_difference_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    trials = [simulated(rng, 1.0, bias=0.02) for _ in range(400)]
    missed = sum(not interval.low <= 1 <= interval.high for interval, _ in trials)
    assert 8 <= missed <= 33  # 5 % of 400, three standard deviations either way


def test_a_model_against_itself_is_no_difference_shown():
    rng = np.random.default_rng(2)
    verdicts = Counter(decide(*simulated(rng, 1.0))[0] for _ in range(200))
    assert verdicts["no difference shown"] >= 190


@pytest.mark.parametrize(("slowdown", "verdict"), [(1.031, "slower"), (1 / 1.031, "faster")])
def test_a_known_difference_of_three_percent_is_found(slowdown, verdict):
    rng = np.random.default_rng(3)
    verdicts = Counter(decide(*simulated(rng, slowdown))[0] for _ in range(100))
    assert verdicts[verdict] >= 90


@pytest.mark.parametrize(
    ("interval", "spread", "verdict"),
    [
        (RatioInterval(0.90, 0.88, 0.92), 0.0, "faster"),
        (RatioInterval(1.10, 1.08, 1.12), 0.0, "slower"),
        (RatioInterval(1.10, 0.99, 1.21), 0.0, "no difference shown"),
        (RatioInterval(1.10, 1.00, 1.21), 0.0, "no difference shown"),
        (RatioInterval(1.009, 1.008, 1.010), 0.0, "no difference shown"),
        (RatioInterval(1.011, 1.010, 1.012), 0.0, "slower"),
        (RatioInterval(0.991, 0.990, 0.992), 0.0, "no difference shown"),
        (RatioInterval(0.989, 0.988, 0.990), 0.0, "faster"),
        (RatioInterval(1.03, 1.02, 1.04), 0.02, "no difference shown"),
        (RatioInterval(1.03, 1.02, 1.04), 0.014, "slower"),
    ],
)
def test_verdict_needs_the_interval_and_the_effect(interval, spread, verdict):
    assert decide(interval, spread)[0] == verdict


def test_reason_says_that_the_interval_includes_one():
    reason = decide(RatioInterval(1.002, 0.99, 1.01), 0.0)[1]
    assert reason == "+0.2 % time, but the interval includes x1"


def test_reason_says_what_could_have_been_told_apart():
    reason = decide(RatioInterval(1.03, 1.02, 1.04), 0.05)[1]
    assert reason == "+3.0 % time, below the 10.5 % that could be told apart"


def test_interval_is_students():
    logs = np.array([0.01, 0.03, -0.02, 0.05, 0.00, 0.02, 0.01, 0.04])
    low, high = student.interval(0.95, 7, logs.mean(), logs.std(ddof=1) / math.sqrt(8))
    interval = ratio_interval(logs)
    assert interval.ratio == pytest.approx(math.exp(logs.mean()))
    assert (interval.low, interval.high) == pytest.approx((math.exp(low), math.exp(high)))


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=40), st.floats(0.01, 100))
def test_median_log_ratio_finds_a_common_factor(times, factor):
    scaled = [time * factor for time in times]
    assert median_log_ratio(times, scaled) == pytest.approx(math.log(factor), abs=1e-9)


@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_orders_are_permutations_that_come_equally_often(arms, pairs, seed):
    orders = balanced_orders(arms, pairs, np.random.default_rng(seed))
    assert len(orders) == pairs
    assert all(sorted(order) == list(range(arms)) for order in orders)
    counts = Counter(orders)
    whole, rest = divmod(pairs, math.factorial(arms))
    assert all(whole <= count <= whole + (rest > 0) for count in counts.values())
