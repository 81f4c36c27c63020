"""Models that compute the same by other means: the oracle has to accept them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.validation.models import validate_models
from structopt_onnx.validation.tolerances import arithmetic_dtype, tolerance

WEIGHTS = np.random.default_rng(7).normal(size=(2, 64, 64)) / 8


def samples(dtype=np.float32):
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(5, 64)).astype(dtype)} for _ in range(6)]


def constant(model: ir.Model, **arrays: np.ndarray) -> ir.Model:
    """Turn inputs into initializers."""
    for name, array in arrays.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    return model


def two_products(build, kind, dtype) -> ir.Model:
    weights = f"{kind}[64,64] A, {kind}[64,64] B"
    model = build(
        "h = MatMul(x, A) y = MatMul(h, B)",
        inputs=f"{kind}[N,64] x, {weights}",
        outputs=f"{kind}[N,64] y",
    )
    first, second = WEIGHTS.astype(dtype)
    return constant(model, A=first, B=second)


def one_product(build, kind, dtype) -> ir.Model:
    model = build(
        "y = MatMul(x, C)",
        inputs=f"{kind}[N,64] x, {kind}[64,64] C",
        outputs=f"{kind}[N,64] y",
    )
    first, second = WEIGHTS.astype(dtype).astype(np.float64)
    return constant(model, C=(first @ second).astype(dtype))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("float", np.float32), ("double", np.float64), ("float16", np.float16)]
)
def test_reassociated_products_are_rounding_and_not_bitwise(build, kind, dtype):
    models = two_products(build, kind, dtype), one_product(build, kind, dtype)
    result = validate_models(*models, samples(dtype))
    assert result.failures == ()
    assert 0.0 < result.exact.error < tolerance(np.dtype(dtype).name, "rounding")
    bitwise = validate_models(*models, samples(dtype), exactness=Exactness.BITWISE)
    assert bitwise.exact.failures[0].startswith("output 'y': relative L2 error")
    assert bitwise.shipped.passed


def test_float16_inside_is_rounded_like_float16(build):
    def wrapped(weights: str, nodes: str, **arrays) -> ir.Model:
        model = build(
            f"c = Cast<to=10>(x) {nodes} y = Cast<to=1>(o)",
            inputs=f"float[N,64] x, {weights}",
            outputs="float[N,64] y",
        )
        return constant(model, **arrays)

    first, second = WEIGHTS.astype(np.float16)
    both = "float16[64,64] A, float16[64,64] B"
    original = wrapped(both, "h = MatMul(c, A) o = MatMul(h, B)", A=first, B=second)
    product = (first.astype(np.float64) @ second).astype(np.float16)
    candidate = wrapped("float16[64,64] C", "o = MatMul(c, C)", C=product)
    result = validate_models(original, candidate, samples())
    assert arithmetic_dtype(original) == "float16"
    assert result.passed
    assert result.exact.error > tolerance("float32", "rounding")
    assert result.exact.limits == {"y": tolerance("float16", "rounding")}


def test_float16_storage_is_no_arithmetic(build):
    model = build(
        "w = Cast<to=1>(A) y = MatMul(x, w)",
        inputs="float[N,64] x, float16[64,64] A",
        outputs="float[N,64] y",
    )
    assert arithmetic_dtype(constant(model, A=WEIGHTS[0].astype(np.float16))) == "float32"


def test_models_come_from_files_and_bytes_too(build, tmp_path):
    model = two_products(build, "float", np.float32)
    path = tmp_path / "model.onnx"
    ir.save(model, path)
    result = validate_models(path, path.read_bytes(), samples())
    assert result.passed
    assert result.exact.outputs[0].bitwise_equal
    assert result.noise["y"] <= tolerance("float32", "rounding")


def test_initializers_listed_as_inputs_before_ir_4_are_no_interface(build):
    inputs = {"inputs": "float[N,64] x, float w = {2.0}"}
    outputs = {"outputs": "float[N,64] y"}
    old = build("y = Mul(x, w)", ir_version=3, **inputs, **outputs)
    new = build("c = Constant<value_float=2.0>() y = Mul(x, c)", inputs="float[N,64] x", **outputs)
    assert validate_models(old, new, samples()).passed


def test_an_output_shape_may_be_stated_where_it_was_open(build):
    open_ = build("y = Neg(x)", inputs="float[N,64] x", outputs="float[?,64] y")
    known = build("y = Neg(x)", inputs="float[N,64] x", outputs="float[N,64] y")
    assert validate_models(open_, known, samples()).passed
    assert not validate_models(known, open_, samples()).passed


def test_sequences_bools_and_text(build):
    ports = {
        "inputs": "float[N,64] x",
        "outputs": "seq(float[N,64]) s, bool[N,64] b, string[N,64] t",
    }
    right = "n = Neg(x) s = SequenceConstruct(x, n) b = Less(x, n) t = Cast<to=8>(x)"
    wrong = "n = Neg(x) s = SequenceConstruct(n, x) b = Less(n, x) t = Cast<to=8>(n)"
    result = validate_models(build(right, **ports), build(right, **ports), samples())
    assert result.failures == ()
    assert [output.dtype for output in result.exact.outputs] == ["float32", "bool", "string"]
    result = validate_models(build(right, **ports), build(wrong, **ports), samples())
    assert [output.error for output in result.exact.outputs] == [2.0, 1.0, 1.0]
