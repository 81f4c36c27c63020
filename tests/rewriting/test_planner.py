from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from structopt_onnx.rewriting.planner import Item, cover, knapsack

# Weights that are whole parts of the grid: there the plan is exact.
_PARTS = st.integers(0, 8192) | st.sampled_from([0, 1, 4096, 8192, 9000])
_VALUES = st.integers(-50, 20)


def _best(groups: list[list[Item]], capacity: float) -> float:
    options = [[None, *range(len(group))] for group in groups]
    plans = itertools.product(*options)
    return min(
        value for plan in plans for weight, value in [_sums(groups, plan)] if weight <= capacity
    )


def _sums(groups, plan) -> tuple[float, float]:
    taken = [g[i] for g, i in zip(groups, plan, strict=True) if i is not None]
    return math.fsum(t.weight for t in taken), math.fsum(t.value for t in taken)


@given(
    st.lists(
        st.lists(st.tuples(_PARTS, _VALUES), max_size=4),
        max_size=5,
    ),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_the_plan_is_the_best_of_all(parts, capacity: float):
    groups = [[Item(p / 8192 * capacity, v) for p, v in group] for group in parts]
    plan = knapsack(groups, capacity)
    weight, value = _sums(groups, plan)
    assert weight <= capacity
    assert value == _best(groups, capacity)


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 2, allow_nan=False) | st.just(math.inf), st.floats(-10, 10)),
            max_size=3,
        ),
        max_size=4,
    ),
    st.floats(0, 1.5) | st.just(math.inf),
)
def test_the_plan_is_always_feasible_and_never_worse_than_nothing(pairs, capacity: float):
    groups = [[Item(w, v) for w, v in group] for group in pairs]
    plan = knapsack(groups, capacity)
    assert len(plan) == len(groups)
    weight, value = _sums(groups, plan)
    assert weight <= capacity * (1 + 1e-12)
    assert value <= 0
    if not math.isinf(capacity):
        # Rounding up wastes at most a part per group.
        spared = capacity * (1 - len(groups) / 8192)
        assert value <= _best(groups, spared) + 1e-9


@pytest.mark.parametrize(
    ("groups", "capacity", "expected"),
    [
        ([], 1.0, []),
        ([[]], 1.0, [None]),
        ([[], [Item(0.5, -1)]], 1.0, [None, 0]),
        ([[Item(math.inf, -5)]], 1.0, [None]),
        ([[Item(math.nan, -5)]], 1.0, [None]),
        ([[Item(math.inf, -5), Item(0.1, -1)]], math.inf, [1]),
        ([[Item(math.inf, -5)]], 0.0, [None]),
        ([[Item(0.0, -1)]], 0.0, [0]),
        ([[Item(1e-9, -1)]], 0.0, [None]),
        ([[Item(1.0, -1)]], 1.0, [0]),
        ([[Item(0.3, 1)]], 1.0, [None]),
        ([[Item(0.6, -3)], [Item(0.5, -2)], [Item(0.5, -2)]], 1.0, [None, 0, 0]),
        ([[Item(0.2, -1), Item(0.2, -2)]], 1.0, [1]),
    ],
)
def test_plans(groups, capacity: float, expected: list[int | None]):
    assert knapsack(groups, capacity) == expected


def _least(groups: list[list[Item]], saving: float) -> float | None:
    options = [[None, *range(len(group))] for group in groups]
    weights = [
        weight
        for plan in itertools.product(*options)
        for weight, value in [_sums(groups, plan)]
        if -value >= saving
    ]
    return min(weights, default=None)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 50), st.integers(-9000, 100)), max_size=4), max_size=5
    ),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_a_cover_is_the_lightest_of_all(pairs, saving: float):
    # Values that are whole parts of the grid: there the cover is exact.
    groups = [[Item(w, v / 8192 * saving) for w, v in group] for group in pairs]
    plan = cover(groups, saving)
    least = _least(groups, saving)
    if least is None:
        assert plan is None
    else:
        weight, value = _sums(groups, plan)
        assert -value >= saving * (1 - 1e-12)
        assert weight == least


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 2) | st.just(math.inf), st.floats(-10, 10)), max_size=3),
        max_size=4,
    ),
    st.floats(0.01, 20),
)
def test_a_cover_saves_what_was_asked_for_and_is_not_far_from_the_lightest(pairs, saving: float):
    groups = [[Item(w, v) for w, v in group] for group in pairs]
    plan = cover(groups, saving)
    if plan is None:
        usable = [[i for i in group if math.isfinite(i.weight)] for group in groups]
        assert _least(usable, saving * (1 + 1e-12)) is None
        return
    weight, value = _sums(groups, plan)
    assert -value >= saving * (1 - 1e-12)
    assert math.isfinite(weight)
    # Rounding asks for a part more per group at most.
    more = _least(groups, saving * (1 + len(groups) / 8192) * (1 + 1e-12))
    assert more is None or weight <= more + 1e-9


@pytest.mark.parametrize(
    ("groups", "saving", "expected"),
    [
        ([], 0.0, []),
        ([[Item(1.0, -1)]], 0.0, [None]),
        ([], 1.0, None),
        ([[Item(1.0, -1)]], 2.0, None),
        ([[Item(math.inf, -5)]], 1.0, None),
        ([[Item(1.0, -1), Item(3.0, -2)], [Item(1.5, -1)]], 2.0, [0, 0]),
        ([[Item(1.0, -1), Item(2.0, -2)], [Item(1.5, -1)]], 2.0, [1, None]),
        # Three savings that round down to a part less than the whole, all needed.
        ([[Item(1.0, -1 / 3)]] * 3, 1.0, [0, 0, 0]),
        ([[Item(2.0, -5), Item(1.0, -5)]], 5.0, [1]),
    ],
)
def test_covers(groups, saving: float, expected):
    assert cover(groups, saving) == expected
