from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structopt_onnx.errors import ModelError
from structopt_onnx.validation.metrics import OutputComparison, OutputMetrics

LIMITED = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-6 else 0.0)


def metrics(*pairs) -> OutputMetrics:
    comparison = OutputComparison("y")
    for reference, candidate in pairs:
        comparison.update(reference, candidate)
    return comparison.result()


def plain_relative_l2(a, b) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norm, difference = np.linalg.norm(a), np.linalg.norm(b - a)
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / norm)


@st.composite
def pairs(draw):
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
    vectors = hnp.arrays(np.float64, shape, elements=LIMITED)
    return draw(vectors), draw(vectors)


@given(pairs())
def test_agrees_with_the_textbook_formulas(pair):
    a, b = pair
    result = metrics((a, b))
    assert result.relative_l2 == pytest.approx(plain_relative_l2(a, b), rel=1e-12)
    assert result.max_abs == np.abs(b - a).max()
    assert result.mismatched_elements == np.mean(a != b)
    if np.linalg.norm(a) and np.linalg.norm(b):
        cosine = np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        assert result.cosine == pytest.approx(cosine, abs=1e-12)
    if 0 < result.relative_l2 < math.inf:
        assert result.snr_db == pytest.approx(-20 * math.log10(result.relative_l2))


@given(pairs(), st.integers(-900, 900))
def test_scale_changes_nothing_even_where_squares_overflow(pair, exponent):
    a, b = pair
    plain, scaled = metrics((a, b)), metrics((np.ldexp(a, exponent), np.ldexp(b, exponent)))
    assert scaled.relative_l2 == pytest.approx(plain.relative_l2, rel=1e-12)
    assert scaled.cosine == pytest.approx(plain.cosine, abs=1e-12)
    assert scaled.top1_agreement == plain.top1_agreement
    assert scaled.max_abs == pytest.approx(math.ldexp(plain.max_abs, exponent), rel=1e-12)


@given(pairs())
def test_is_symmetric_where_it_should_be(pair):
    a, b = pair
    forth, back = metrics((a, b)), metrics((b, a))
    for field in ("max_abs", "cosine", "mismatched_elements", "bitwise_equal", "shape_equal"):
        assert getattr(forth, field) == getattr(back, field), field
    assert metrics((a, -b)).cosine == pytest.approx(
        -forth.cosine if a.any() and b.any() else forth.cosine
    )


@given(pairs())
def test_streaming_pools_like_one_call(pair):
    a, b = pair
    whole = metrics((a, b))
    rows = metrics(*((a[i : i + 1], b[i : i + 1]) for i in range(len(a))))
    assert rows.relative_l2 == pytest.approx(whole.relative_l2, rel=1e-12)
    assert rows.cosine == pytest.approx(whole.cosine, abs=1e-12)
    assert (rows.max_abs, rows.elements, rows.compared) == (whole.max_abs, a.size, a.size)
    assert rows.mismatched_elements == whole.mismatched_elements
    assert rows.top1_agreement == whole.top1_agreement
    assert rows.mismatched_samples == np.mean((a != b).any(axis=1))


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)))
def test_an_output_equals_itself_whatever_it_holds(a):
    result = metrics((a, a.copy()))
    assert result.error == 0.0
    assert result.bitwise_equal
    assert result.problems == ()
    assert result.worst_sample is None
    assert result.compared == np.isfinite(a).sum()


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 11),
)
def test_one_new_nonfinite_element_is_never_within_a_budget(a, bad, place):
    b = a.copy()
    b.flat[place] = bad
    for result in (metrics((a, b)), metrics((b, a))):
        assert result.error == math.inf
        assert not result.nonfinite_equal
        assert len(result.problems) == 1
        assert "sample 0" in result.problems[0]


def test_pools_large_chunks_the_same():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1 << 20) + 17)
    b = a + 1e-3 * rng.normal(size=a.shape)
    assert metrics((a, b)).relative_l2 == pytest.approx(plain_relative_l2(a, b), rel=1e-12)


def test_zero_reference():
    zero = np.zeros((2, 3), np.float32)
    assert metrics((zero, zero)).error == 0.0
    assert metrics((zero, zero)).cosine == 1.0
    assert metrics((zero, zero)).snr_db == math.inf
    wrong = metrics((zero, zero + np.float32(1e-30)))
    assert wrong.error == math.inf
    assert wrong.cosine == 0.0
    assert wrong.worst_sample == 0


def test_minus_zero_is_equal_in_value_and_not_in_bits():
    result = metrics((np.zeros(2, np.float32), -np.zeros(2, np.float32)))
    assert result.error == 0.0
    assert not result.bitwise_equal


def test_extremes_of_float64():
    huge = np.array([1.7e308, -1.7e308])
    assert metrics((huge, -huge)).relative_l2 == 2.0
    assert metrics((huge, -huge)).max_abs == math.inf
    assert metrics((huge, -huge)).cosine == pytest.approx(-1.0)
    tiny = np.array([5e-324, 0.0])
    assert metrics((tiny, 2 * tiny)).relative_l2 == 1.0
    assert metrics((huge, tiny)).relative_l2 == pytest.approx(1.0)


def test_worst_sample_is_found_and_small_samples_are_judged_by_the_typical_one():
    one = np.ones((1, 4), np.float32)
    result = metrics((one, one), (one, one * 1.5), (one, one))
    assert result.worst_sample == 1
    assert result.worst_sample_relative_l2 == pytest.approx(0.5)
    assert result.relative_l2 == pytest.approx(0.5 / math.sqrt(3))
    assert result.mismatched_samples == pytest.approx(1 / 3)
    # All wrong on a sample of 1e-5 of the usual size: 1e-2 of the floor of 1e-3.
    small = metrics(*[(one, one)] * 999, (1e-5 * one, -1e-5 * one))
    assert small.worst_sample_relative_l2 == pytest.approx(2e-2, rel=1e-3)
    assert small.worst_sample == 999


def test_integers_are_counted_exactly():
    a = np.array([2**62, -(2**63), 5], np.int64)
    b = np.array([2**62 + 1, 2**63 - 1, 5], np.int64)
    result = metrics((a, a), (a, b))
    assert result.error == result.mismatched_samples == 0.5
    assert result.mismatched_elements == pytest.approx(2 / 6)
    assert result.max_abs == pytest.approx(2.0**64)
    assert result.relative_l2 is result.cosine is result.snr_db is result.top1_agreement is None
    assert metrics((a, np.array([2**62 + 1, -(2**63), 5]))).max_abs == 1.0


def test_bools_and_text():
    flags = np.array([[True, False]])
    assert metrics((flags, ~flags)).error == 1.0
    assert metrics((flags, ~flags)).max_abs is None
    words = np.array(["a", "bc"], object)
    assert metrics((words, np.array(["a", "bc"], object))).bitwise_equal
    result = metrics((words, np.array(["a", "bd"], object)), (words, np.array(["a", "bc"])))
    assert result.dtype == "string"
    assert (result.error, result.worst_sample) == (0.5, 0)
    assert result.problems == ()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16])
def test_narrow_floats_are_floats(dtype):
    a = np.array([[1.0, 2.0, 4.0]]).astype(dtype)
    result = metrics((a, (a.astype(np.float32) * 2).astype(dtype)))
    assert result.relative_l2 == 1.0
    assert result.top1_agreement == 1.0
    assert metrics((a, a)).bitwise_equal


def test_complex_numbers_are_pairs():
    a = np.array([1 + 1j, 2j], np.complex64)
    assert metrics((a, 2 * a)).relative_l2 == 1.0
    assert metrics((a, a.conj())).relative_l2 == pytest.approx(math.sqrt(20 / 6))


def test_other_dtype_shape_or_kind_is_a_problem():
    a = np.ones((2, 3), np.float32)
    double = metrics((a, a.astype(np.float64)))
    assert not double.dtype_equal
    assert double.relative_l2 == 0.0
    assert double.error == math.inf
    assert not metrics((a, a.astype(np.int32))).dtype_equal
    transposed = metrics((a, a), (a, a.T))
    assert not transposed.shape_equal
    assert transposed.problems == ("sample 1: shape (2, 3) became (3, 2)",)
    assert transposed.worst_sample == 1
    assert metrics((a, None)).problems == ("sample 0: shape (2, 3) became no value",)
    assert metrics((None, None)).error == 0.0
    mixed = metrics((a, a), (a.astype(np.float64), a.astype(np.float64)))
    assert not mixed.dtype_equal


def test_top1_agreement():
    a = np.array([[0.1, 0.9], [0.5, 0.5], [0.9, 0.1], [np.nan, 0.0]], np.float32)
    b = np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [np.nan, 0.0]], np.float32)
    assert metrics((a, b)).top1_agreement == pytest.approx(2 / 3)
    assert metrics((a[:, 0], b[:, 0])).top1_agreement is None
    assert metrics((a[:, :1], b[:, :1])).top1_agreement is None
    lengths = np.ones((1, 3), np.float32), np.ones((1, 4), np.float32)
    assert metrics(*((x, x) for x in lengths)).top1_agreement is None


def test_sequences_maps_and_optionals():
    one, two = np.ones(2, np.float32), np.full(3, 2.0, np.float32)
    assert metrics(([one, two], [one, two])).error == 0.0
    assert metrics(([one, two], [one, 2 * two])).relative_l2 == pytest.approx(math.sqrt(12 / 14))
    assert not metrics(([one, two], [one])).shape_equal
    assert not metrics(([one, two], [two, one])).shape_equal
    rows = [{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}]
    assert metrics((rows, [dict(reversed(row.items())) for row in rows])).bitwise_equal
    result = metrics((rows, [rows[0], {0: 0.5, 1: 0.25}]))
    assert result.dtype == "float32"
    assert result.max_abs == 0.25
    assert not metrics((rows, [rows[0], {0: 0.5, 2: 0.5}])).shape_equal
    assert metrics(({"a": [one]}, {"a": [two[:2]]})).relative_l2 == 1.0


def test_unknown_kinds_are_refused_in_words():
    with pytest.raises(ModelError, match="kind object can't be compared"):
        metrics((object(), object()))


def test_the_standard_error_is_that_of_samples_drawn_anew():
    rng = np.random.default_rng(0)
    count = 60
    off = rng.lognormal(size=count)
    size = 1 + off * rng.uniform(0.5, 1, count)
    whole = [rng.standard_normal(40) * s for s in size]
    made = [a + 0.05 * o * rng.standard_normal(40) for a, o in zip(whole, off, strict=True)]
    said = metrics(*zip(whole, made, strict=True)).standard_error
    d = np.array([np.sum((a - b) ** 2) for a, b in zip(whole, made, strict=True)])
    r = np.array([np.sum(a**2) for a in whole])
    drawn = rng.integers(0, count, (4000, count))
    anew = np.sqrt(d[drawn].sum(axis=1) / r[drawn].sum(axis=1)).std()
    assert said == pytest.approx(anew, rel=0.15)
    # A quarter of the samples, twice the error.
    quarter = metrics(*list(zip(whole, made, strict=True))[:15]).standard_error
    assert said < quarter < 4 * said


def test_the_standard_error_needs_two_samples_and_is_nothing_where_all_are_equal():
    a = np.array([1.0, 2.0])
    assert metrics((a, a)).standard_error is None
    assert metrics((a, a), (a, a)).standard_error == 0
    assert metrics((a, 2 * a), (a, 2 * a)).standard_error == pytest.approx(0, abs=1e-12)
    assert metrics((a, 0 * a), (0 * a, a), (1e200 * a, 1e200 * a)).standard_error >= 0
    assert metrics((np.array([1, 2]),) * 2).standard_error is None
