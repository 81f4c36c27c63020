from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.patch import Names
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.rewriting.passes import Refusal
from structopt_onnx.runtime.session import Session

SIZES = {"w": (6, 4), "u": (4, 6), "k": (6, 5, 3, 1), "c": (6,), "d": (6, 1), "e": (1,)}
FORMS = {
    "MatMul": ("float[n, 4] x", "y = MatMul (x, u)", False),
    "MatMul and Add": ("float[n, 4] x", "t = MatMul (x, u)\n y = Add (c, t)", True),
    "MatMul from the left": (
        "float[2, 4, n] x",
        "t = MatMul (w, x)\n y = Add (t, d)",
        True,
    ),
    "Gemm": ("float[n, 4] x", "y = Gemm <alpha = 2.0, beta = 0.5, transB = 1> (x, w, c)", True),
    "Gemm with data turned": ("float[4, n] x", "y = Gemm <transA = 1> (x, u, c)", True),
    "Gemm, one number added": ("float[n, 4] x", "y = Gemm (x, u, e)", False),
    "Conv": (
        "float[2, 5, 9, 7] x",
        "h = Relu (x)\n y = Conv <pads = [1, 0, 1, 0]> (h, k, c)",
        True,
    ),
    "Conv, strided": (
        "float[2, 5, 9, 7] x",
        "h = Relu (x)\n y = Conv <strides = [2, 1]> (h, k)",
        False,
    ),
}


def model(reads: str, nodes: str) -> ir.Model:
    rng = np.random.default_rng(4)
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g ({reads}) => (float[p, q] y) {{ {nodes} }}
    """
    proto = onnx.parser.parse_model(text)
    if "Conv" in nodes or "left" in nodes or "[2," in reads:
        rank = 4 if "Conv" in nodes else 3
        proto.graph.output[0].CopyFrom(
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * rank)
        )
    for name, shape in SIZES.items():
        if any(name in node.input for node in proto.graph.node):
            array = rng.normal(size=shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def found_in(made: ir.Model) -> LastFactor | Refusal:
    facts = Facts(made)
    name = next(n for n in made.graph.initializers if n in {"w", "u", "k"})
    return last_factor(name, facts.scopes[0], facts)


def sides(made: ir.Model, found: LastFactor) -> tuple[np.ndarray, np.ndarray]:
    """Observations of z and y, features last."""
    shape = [5 if not isinstance(d, int) else d for d in made.graph.inputs[0].shape]
    feeds = {"x": np.random.default_rng(5).normal(size=shape).astype(np.float32)}
    wanted = [n for s in (found.read, found.made) for n in s.values if n != "x"]
    arrays = feeds | Session(made, optimize=False, outputs=wanted).run(feeds)
    rows = [s.rows(arrays[s.values[0]], arrays) for s in (found.read, found.made)]
    return tuple(r.reshape(-1, r.shape[-1]).astype(np.float64) for r in rows)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_read_and_written(form):
    reads, nodes, free = FORMS[form]
    made = model(reads, nodes)
    found = found_in(made)
    inputs, outputs = sides(made, found)
    np.testing.assert_allclose(inputs @ found.factor().T + found.bias, outputs, atol=1e-5)
    assert (found.addend is not None) == free
    rng = np.random.default_rng(6)
    factor, bias = rng.normal(size=found.factor().shape), found.bias
    if free:
        bias = rng.normal(size=bias.shape)
    scope = Facts(made).scopes[0]
    patch = found.written(scope, factor, bias)
    patch.check()
    patch.apply(Names(made), pass_name="refit", number=1)
    inputs, outputs = sides(made, found)
    np.testing.assert_allclose(inputs @ factor.T + bias, outputs, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        "t = MatMul (x, u)\n v = MatMul (x, u)\n y = Add (t, v)",
        "y = Gemm <alpha = 0.0> (x, u, c)",
        "y = Gemm <beta = 0.0> (x, u, c)",
        "s = MatMul (x, u)\n y = Gemm (x, u, s)",
    ],
    ids=["read twice", "times zero", "bias times zero", "addend varies"],
)
def test_what_cannot_be_fitted_is_superseded(nodes):
    found = found_in(model("float[n, 4] x", nodes))
    assert isinstance(found, Refusal)
    assert found.code == "superseded"


def test_a_bias_that_others_read_stays():
    found = found_in(model("float[n, 4] x", "t = Gemm (x, u, c)\n y = Mul (t, c)"))
    assert found.addend is None
    assert np.any(found.bias)
