from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from structopt_onnx.linalg import pruning
from structopt_onnx.linalg.masked_refit import masked_refit
from structopt_onnx.linalg.pruning import Inputs, Pattern, alternating, largest, pruned, sparsegpt

seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a map and the moment of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) * np.arange(1, columns + 1) ** -1.0
    moment = mixing @ mixing.T + 0.05 * np.eye(columns)
    scales = rng.uniform(0.5, 2, columns)
    return rng.standard_normal((rows, columns)), moment * np.outer(scales, scales)


def error(weight: np.ndarray, sparse: np.ndarray, moment: np.ndarray) -> float:
    lost = weight - sparse
    return float(np.sum((lost @ moment) * lost) / np.sum((weight @ moment) * weight))


def solved(weight: np.ndarray, moment: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """One normal equation per row."""
    found = np.zeros_like(weight)
    for row, aim, where in zip(found, weight @ moment, kept, strict=True):
        row[where] = np.linalg.solve(moment[np.ix_(where, where)], aim[where])
    return found


@given(seeds, st.integers(1, 8), st.integers(1, 24), st.floats(0, 1))
def test_the_refit_is_one_normal_equation_per_row(seed, rows, columns, share):
    weight, moment = problem(seed, rows, columns)
    kept = np.random.default_rng(seed + 1).random(weight.shape) >= share
    found, best = masked_refit(weight, moment, kept), solved(weight, moment, kept)
    assert not found[~kept].any()
    least = error(weight, best, moment)
    assert least - 1e-12 <= error(weight, found, moment) <= least * 1.001 + 1e-9


def test_the_refit_of_a_map_of_zeros_is_zero():
    _, moment = problem(0, 3, 5)
    assert not masked_refit(np.zeros((3, 5)), moment, np.ones((3, 5), bool)).any()


@given(seeds, st.integers(1, 6), st.integers(1, 20), st.floats(0, 1), st.booleans())
def test_so_many_of_the_lowest_go(seed, rows, columns, zeros, by_row):
    scores = np.random.default_rng(seed).random((rows, columns))
    kept = largest(scores, Pattern(zeros), by_row=by_row)
    compared = scores if by_row else scores.reshape(1, -1)
    for row, mask in zip(compared, kept.reshape(compared.shape), strict=True):
        assert np.count_nonzero(~mask) == round(zeros * row.size)
        assert row[~mask].max(initial=-1) <= row[mask].min(initial=2)


@given(seeds, st.integers(1, 6), st.integers(1, 30), st.sampled_from(["2:4", "4:8", "1:3"]))
def test_runs_of_a_row_keep_so_many(seed, rows, columns, text):
    count, length = (int(part) for part in text.split(":"))
    weight, moment = problem(seed, rows, columns)
    inputs, pattern = Inputs(moment), Pattern.of(text)
    whole = columns // length * length
    for made in (
        pruned(weight, None, pattern),
        pruned(weight, inputs, pattern),
        sparsegpt(weight, inputs, pattern),
    ):
        runs = made[:, :whole].reshape(-1, length)
        assert (np.count_nonzero(runs, axis=1) == count).all()
        assert made[:, whole:].all()


def test_without_inputs_the_largest_stay_as_they_are():
    weight, _ = problem(3, 7, 9)
    found = pruned(weight, None, Pattern(0.5))
    assert np.count_nonzero(found) == 63 - round(31.5)
    assert set(found[found != 0]) <= set(weight.reshape(-1))
    assert np.abs(found[found != 0]).min() > np.abs(weight[found == 0]).max()


@given(seeds)
def test_independent_inputs_are_weighed_by_their_size(seed):
    weight, moment = problem(seed, 6, 12)
    diagonal = np.diag(moment.diagonal())
    kept = largest(np.abs(weight) * np.sqrt(diagonal.diagonal()), Pattern(0.5))
    found = pruned(weight, Inputs(diagonal), Pattern(0.5))
    np.testing.assert_allclose(found, np.where(found != 0, weight, 0.0), rtol=1e-6)
    assert error(weight, found, diagonal) <= 1.1 * error(weight, weight * kept, diagonal)


def test_the_mask_is_near_to_the_best_of_all():
    found, best, by_size = [], [], []
    for seed in range(40):
        weight, moment = problem(seed, 1, 10)
        every = []
        for places in combinations(range(10), 5):
            kept = np.zeros((1, 10), bool)
            kept[0, list(places)] = True
            every.append(error(weight, solved(weight, moment, kept), moment))
        best.append(min(every))
        found.append(error(weight, pruned(weight, Inputs(moment), Pattern(0.5)), moment))
        kept = largest(np.abs(weight) * np.sqrt(moment.diagonal()), Pattern(0.5))
        by_size.append(error(weight, solved(weight, moment, kept), moment))
    by_search, by_size = (np.exp(np.mean(np.log(np.array(e) / best))) for e in (found, by_size))
    assert by_search - 1 < 0.6 * (by_size - 1)


def test_the_mask_does_better_than_column_by_column():
    ratios = []
    for seed in range(5):
        weight, moment = problem(seed, 32, 48)
        inputs, pattern = Inputs(moment), Pattern(0.6)
        greedy = masked_refit(weight, moment, sparsegpt(weight, inputs, pattern) != 0)
        joint = masked_refit(weight, moment, alternating(weight, inputs, pattern))
        ratios.append(error(weight, joint, moment) / error(weight, greedy, moment))
    assert np.mean(ratios) < 0.9


def _column_by_column(weight: np.ndarray, moment: np.ndarray, zeros: float) -> np.ndarray:
    """SparseGPT by its definition, for one block: an inverse of what is left at every column."""
    found, rest = weight.copy(), range(weight.shape[1])
    inverses = [np.linalg.inv(moment[j:, j:]) for j in rest]
    scales = np.sqrt([inverse[0, 0] for inverse in inverses])
    kept = largest(np.abs(weight / scales), Pattern(zeros))
    for j in rest:
        lost = np.where(kept[:, j], 0.0, found[:, j] / inverses[j][0, 0])
        found[:, j:] -= np.outer(lost, inverses[j][0])
    return np.where(kept, found, 0.0)


@given(seeds, st.integers(1, 6), st.integers(1, 16), st.floats(0, 1))
def test_columns_to_come_make_up_for_zeros(seed, rows, columns, zeros):
    weight, moment = problem(seed, rows, columns)
    found = sparsegpt(weight, Inputs(moment), Pattern(zeros))
    np.testing.assert_allclose(
        found, _column_by_column(weight, moment, zeros), rtol=1e-6, atol=1e-9
    )


def test_what_one_block_loses_the_next_ones_make_up_for(monkeypatch: pytest.MonkeyPatch):
    weight, moment = problem(1, 5, 30)
    pattern = Pattern(0.5, 2)
    whole = sparsegpt(weight, Inputs(moment), pattern)
    monkeypatch.setattr(pruning, "_BLOCK", 4)
    np.testing.assert_allclose(sparsegpt(weight, Inputs(moment), pattern), whole, rtol=1e-9)


def test_maps_too_large_for_many_products_go_column_by_column(monkeypatch: pytest.MonkeyPatch):
    weight, moment = problem(2, 6, 9)
    monkeypatch.setattr(pruning, "_LARGE", 1)
    found = pruned(weight, Inputs(moment), Pattern(0.5))
    np.testing.assert_array_equal(found, sparsegpt(weight, Inputs(moment), Pattern(0.5)))


@pytest.mark.parametrize("text", ["2", "2:4:8", "4:4", "0:4", "a:b", "", "-1:4"])
def test_what_is_no_pattern_is_told(text: str):
    with pytest.raises(ValueError, match="such as 2:4"):
        Pattern.of(text)
