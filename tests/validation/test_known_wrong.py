"""Models that are wrong in a known way: the oracle has to reject each one by default."""

from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.errors import DataError, UsageError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.validation.models import validate_models

NEG = "y = Neg(x)"
TWO = {"outputs": "float[N,4] y, float[N,4] z"}
RAGGED = {"outputs": "float[A,B] y"}
LONG = {"inputs": "int64[N] x", "outputs": "int64[N] y"}
WIDE = {"outputs": "float[N,8] y"}

CONSTANTS = {
    "constants": "float three = {3}, float tiny = {1e-20}, float bit = {1e-3}, "
    "int64[1] start = {0}, int64[1] end = {1}, int64[4] order = {1,0,2,3}, int64[2] row = {-1,1}"
}

# name: nodes of the original, nodes of the candidate, outputs if not y of shape (N, 4)
WRONG = {
    "relu for neg": (NEG, "y = Relu(x)", {}),
    "1.9 times": (NEG, "c = Constant<value_float=-1.9>() y = Mul(x, c)", {}),
    "1.0001 times": (NEG, "c = Constant<value_float=-1.0001>() y = Mul(x, c)", {}),
    "nan": (NEG, "o = Sub(x, x) y = Div(o, o)", {}),
    "permuted": (NEG, "n = Neg(x) y = Gather<axis=1>(n, order)", {}),
    "swapped outputs": ("y = Neg(x) z = Relu(x)", "z = Neg(x) y = Relu(x)", TWO),
    "one of two outputs": ("y = Neg(x) z = Relu(x)", "y = Neg(x) z = Abs(x)", TWO),
    "transposed": (NEG, "n = Neg(x) y = Transpose(n)", RAGGED),
    "emptied": (NEG, "n = Neg(x) y = Slice(n, start, start, end)", RAGGED),
    "another shape": (NEG, "n = Neg(x) y = Reshape(n, row)", RAGGED),
    "constant offset": (NEG, "n = Neg(x) y = Add(n, bit)", {}),
    "zero became tiny": ("y = Sub(x, x)", "o = Sub(x, x) y = Add(o, tiny)", {}),
    "infinity of other sign": (
        "o = Sub(x, x) a = Abs(x) w = Div(a, o) y = Concat<axis=1>(x, w)",
        "o = Sub(x, x) a = Abs(x) b = Neg(a) w = Div(b, o) y = Concat<axis=1>(x, w)",
        WIDE,
    ),
    "cut off where large": (NEG, "n = Neg(x) y = Min(n, three)", {}),
}


def normal(count=20, shape=(3, 4), seed=0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("exactness", [Exactness.ROUNDING, Exactness.BITWISE])
def test_is_rejected(build, case, exactness):
    original, candidate, outputs = WRONG[case]
    common = CONSTANTS | outputs
    result = validate_models(
        build(original, **common),
        build(candidate, **common),
        normal(400 if case == "cut off where large" else 20),
        exactness=exactness,
    )
    assert not result.exact.passed
    assert not result.shipped.passed
    assert not result.passed
    assert any(line.startswith("output ") for line in result.failures)


@pytest.mark.parametrize("case", WRONG)
def test_its_original_is_accepted(build, case):
    original, _, outputs = WRONG[case]
    common = CONSTANTS | outputs
    result = validate_models(
        build(original, **common), build(original, **common), normal(), exactness=Exactness.BITWISE
    )
    assert result.failures == ()
    assert result.exact.samples == result.shipped.samples == 20
    assert (result.exact.optimized, result.shipped.optimized) == (False, True)


def test_nothing_to_compare_is_refused(build):
    neg, relu = build(NEG), build("y = Relu(x)")
    with pytest.raises(DataError, match="no samples"):
        validate_models(neg, relu, [])
    empty = [{"x": np.zeros((0, 4), np.float32)}] * 3
    with pytest.raises(DataError, match="every output is empty in all of 3 samples"):
        validate_models(neg, relu, empty)
    unbound = {"inputs": "float[N,K] x", "outputs": "float[N,K] y"}
    with pytest.raises(DataError, match="every output is empty"):
        validate_models(
            build(NEG, **unbound),
            build("y = Relu(x)", **unbound),
            [{"x": np.zeros((1, 0), np.float32)}],
        )


def test_one_output_without_elements_is_noted(build):
    text = "y = Neg(x) e = Constant<value_ints=[0]>() z = Gather<axis=0>(x, w)"
    model = build(text, inputs="float[N,4] x, int64[K] w", outputs="float[N,4] y, float[K,4] z")
    samples = [feed | {"w": np.zeros(0, np.int64)} for feed in normal(2)]
    result = validate_models(model, model, samples)
    assert result.passed
    assert result.exact.notes == (
        "output 'z' is empty in every sample: its values were not compared",
    )


def test_an_original_that_gives_nan_only_shows_nothing(build):
    model = build("o = Sub(x, x) y = Div(o, o)")
    result = validate_models(model, model, normal(2))
    assert result.exact.failures == (
        "output 'y': the original gives only NaN or infinity; try other samples",
    )


def test_one_wrong_integer_among_a_million(build):
    wrong = (
        "i = Constant<value_ints=[777777]>() c = Constant<value_ints=[-1]>() "
        "n = Neg(x) y = ScatterElements(n, i, c)"
    )
    x = np.arange(1_000_000)
    result = validate_models(build(NEG, **LONG), build(wrong, **LONG), [{"x": x}])
    assert result.failures[0] == (
        "output 'y': share of samples that differ 1 is over the limit 0 (worst in sample 0)"
    )
    assert result.exact.outputs[0].mismatched_elements == 1e-6


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_one_wrong_sample_among_many_is_named(build, scale):
    samples = normal(1000)
    samples[637]["x"] = np.full((1, 4), np.float32(0.125 * scale))
    wrong = (
        f"c = Constant<value_float={0.125 * scale:.9g}>() e = Equal(x, c) n = Neg(x) "
        "y = Where(e, x, n)"
    )
    result = validate_models(build(NEG), build(wrong), samples)
    assert not result.exact.passed
    assert "sample 637" in result.exact.failures[0]
    assert result.exact.outputs[0].worst_sample == 637


def test_other_dtypes_are_rejected(build):
    result = validate_models(
        build(NEG),
        build("n = Neg(x) y = Cast<to=11>(n)", outputs="double[N,4] y"),
        normal(2),
    )
    assert "output 'y' has type tensor(double), not tensor(float)" in result.interface
    assert "output 'y', sample 0: dtype float32 became float64" in result.exact.failures


@pytest.mark.parametrize(
    ("nodes", "ports", "line"),
    [
        ("z = Neg(x)", {"outputs": "float[N,4] z"}, "output 'y' is missing"),
        ("y = Neg(x) z = Neg(x)", TWO, "output 'z' is new"),
        ("y = Neg(w)", {"inputs": "float[N,4] w"}, "input 'x' is missing"),
        ("y = Neg(x)", {"inputs": "float[N,4] x, float w"}, "input 'w' is new"),
        (
            NEG,
            {"inputs": "float[3,4] x"},
            "input 'x' has shape (3, 4), not (N, 4)",
        ),
        (NEG, {"outputs": "float[M,4] y"}, "output 'y' has shape (M, 4), not (N, 4)"),
        (NEG, {"outputs": "float[N,?] y"}, "output 'y' has shape (N, ?), not (N, 4)"),
    ],
)
def test_another_interface_is_rejected(build, nodes, ports, line):
    result = validate_models(build(NEG), build(nodes, **ports), normal(2))
    assert line in result.interface
    assert not result.passed


def test_order_of_outputs_is_part_of_the_interface(build):
    result = validate_models(
        build("y = Neg(x) z = Relu(x)", **TWO),
        build("y = Neg(x) z = Relu(x)", outputs="float[N,4] z, float[N,4] y"),
        normal(2),
    )
    assert result.failures == ("outputs are in another order: z, y",)
    assert result.exact.error == 0.0


def test_defaults_of_inputs_are_kept(build):
    ports = {"inputs": "float[N,4] x, float w = {2.0}"}
    original = build("y = Mul(x, w)", **ports)
    fixed = build("y = Mul(x, w)", constants="float w = {2.0}")
    assert validate_models(original, original, normal(2)).passed
    result = validate_models(original, fixed, normal(2))
    assert result.failures == (
        "input 'w' has a default and can be overridden; in the candidate it is gone",
    )


def test_what_is_random_can_not_be_validated(build):
    model = build("y = RandomNormalLike(x)")
    result = validate_models(model, model, normal(2))
    assert "the original is not deterministic" in result.failures[0]


def test_a_candidate_that_can_not_be_run(build):
    broken = build("s = Constant<value_ints=[3,4]>() n = Neg(x) y = Reshape(n, s)")
    samples = [*normal(2), *normal(1, shape=(2, 4))]
    result = validate_models(build(NEG), broken, samples)
    assert result.exact.failures[0].startswith("sample 2: the candidate can't be run: ")
    assert result.exact.samples == 2


@pytest.mark.parametrize(
    ("budget", "passes"),
    [(0.02, True), ({"y": 0.02}, True), (0.005, False), (0.0, False), ({"y": 0.005}, False)],
)
def test_budgets_stand_for_both_checks(build, budget, passes):
    off = build("c = Constant<value_float=-1.01>() y = Mul(x, c)")
    result = validate_models(build(NEG), off, normal(), max_error=budget, exactness=Exactness.LOSSY)
    assert (result.exact.passed, result.shipped.passed) == (passes, passes)
    assert result.exact.error == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (None, "output 'y' has none"),
        ({}, "output 'y' has none"),
        ({"w": 0.1}, r"names 'w', but the outputs are \['y'\]"),
        (-1.0, "max_error is -1.0"),
        (float("nan"), "max_error is nan"),
        ({"y": float("inf")}, "max_error of output 'y' is inf"),
    ],
)
def test_budgets_that_are_none(build, budget, says):
    with pytest.raises(UsageError, match=says):
        validate_models(
            build(NEG), build(NEG), normal(1), max_error=budget, exactness=Exactness.LOSSY
        )


@pytest.mark.parametrize("case", WRONG)
def test_without_a_limit_numbers_may_differ_but_nothing_else(build, case):
    original, candidate, outputs = WRONG[case]
    common = CONSTANTS | outputs
    result = validate_models(
        build(original, **common),
        build(candidate, **common),
        normal(),
        exactness=Exactness.LOSSY,
        unlimited=True,
    )
    broken = {"nan", "transposed", "emptied", "another shape", "infinity of other sign"}
    assert result.passed == (case not in broken)
    told = "no error limit was set: shapes, types and NaN were checked"
    assert told in result.shipped.notes
