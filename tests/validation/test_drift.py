from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.errors import DataError
from structopt_onnx.model.patch import PASS_KEY, PATCH_KEY, REPLACED_KEY
from structopt_onnx.validation.drift import Origin, drift

ORIGINAL = "a = Neg(x) b = Tanh(a) i = Cast<to=7>(b) c = Abs(b) d = Exp(c) y = Sqrt(d)"


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(size=(2, 4)).astype(np.float32)} for _ in range(5)]


def mark(model, tensor: str, step: str, number: int, replaced: str = "") -> None:
    node = next(node for node in model.graph if node.outputs[0].name == tensor)
    node.metadata_props.update({PASS_KEY: step, PATCH_KEY: str(number), REPLACED_KEY: replaced})


def test_equal_models_do_not_drift(build, samples):
    model = build(ORIGINAL)
    assert drift(model, model.clone(), samples, tolerance=0.0) is None


@pytest.mark.parametrize("memory", [0, 1 << 28])
def test_names_the_first_tensor_and_the_patch_that_made_it(build, samples, memory):
    candidate = build(
        "f = Constant<value_float=-1.0>() a = Mul(x, f) b = Tanh(a) i = Cast<to=7>(b) "
        "k = Constant<value_float=1.1>() p = Abs(b) c = Mul(p, k) d = Exp(c) y = Sqrt(d)"
    )
    mark(candidate, "a", "harmless", 1)
    mark(candidate, "p", "harmful", 2, "c,q")
    mark(candidate, "c", "harmful", 2, "c,q")
    found = drift(build(ORIGINAL), candidate, samples, tolerance=1e-5, memory=memory)
    assert found is not None
    assert (found.tensor, found.op_type) == ("c", "Mul")
    assert found.error == pytest.approx(0.1, rel=1e-4)
    assert found.origin == Origin("harmful", 2, ("c", "q"))
    assert found.agreeing == 2
    assert "rewrite 2, by harmful" in str(found)
    assert "tensor 'c'" in str(found)


def test_looks_upstream_for_the_patch_no_farther_than_what_agrees(build, samples):
    candidate = build(
        "a = Neg(x) k = Constant<value_float=0.5>() p = Mul(a, k) q = Tanh(p) b = Identity(q) "
        "c = Abs(b) d = Exp(c) y = Sqrt(d)"
    )
    mark(candidate, "a", "harmless", 1)
    mark(candidate, "p", "harmful", 2)
    found = drift(build(ORIGINAL), candidate, samples, tolerance=1e-5)
    assert (found.tensor, found.origin.step, found.origin.patch) == ("b", "harmful", 2)


def test_blames_what_agreed_within_the_tolerance_when_there_is_nobody_else(build, samples):
    candidate = build(
        "k = Constant<value_float=-1.01>() a = Mul(x, k) b = Tanh(a) c = Abs(b) "
        "z = Pow(c, t) d = Exp(z) y = Sqrt(d)",
        constants="float t = {3.0}",
    )
    mark(candidate, "a", "slight", 4)
    found = drift(build(ORIGINAL), candidate, samples, tolerance=0.02)
    assert (found.tensor, found.origin.step) == ("d", "slight")


def test_no_patch_no_blame(build, samples):
    found = drift(build(ORIGINAL), build("y = Neg(x)"), samples, tolerance=1e-5)
    assert found.tensor == "y"
    assert found.origin is None
    assert "no rewrite above it" in str(found)


def test_follows_new_names(build, samples):
    candidate = build("n = Neg(x) b2 = Sinh(n) c = Abs(b2) d = Exp(c) y = Sqrt(d)")
    found = drift(build(ORIGINAL), candidate, samples, tolerance=1e-5, names={"b2": "b"})
    assert found.tensor == "b2"


def test_finds_patches_inside_bodies_and_new_data_of_weights(build, samples):
    branches = (
        "s = ReduceSum<keepdims=0>(x) z = Constant<value_float=-1000.0>() p = Greater(s, z) "
        "y = If(p) <then_branch = t () => (float[N,4] u) { u = %s(x) }, "
        "else_branch = e () => (float[N,4] v) { v = Abs(x) }>"
    )
    candidate = build(branches % "Relu")
    body = next(n for n in candidate.graph if n.op_type == "If").attributes["then_branch"]
    node = next(iter(body.as_graph()))
    node.metadata_props.update({PASS_KEY: "inner", PATCH_KEY: "9"})
    found = drift(build(branches % "Neg"), candidate, samples, tolerance=1e-5)
    assert (found.tensor, found.origin) == ("y", Origin("inner", 9, ()))

    pruned = build("y = Mul(x, w)", constants="float w = {2.5}")
    pruned.graph.initializers["w"].metadata_props[PASS_KEY] = "prune"
    original = build("y = Mul(x, w)", constants="float w = {2.0}")
    found = drift(original, pruned, samples, tolerance=1e-5)
    assert found.origin == Origin("prune", None, ())


def test_needs_samples(build):
    with pytest.raises(DataError, match="no samples"):
        drift(build(ORIGINAL), build(ORIGINAL), [], tolerance=1e-5)
