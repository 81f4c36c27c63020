from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.patch import Names
from structopt_onnx.passes.low_rank.factor_pair import activation_behind, pair_with
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.runtime.session import Session

SIZES = {
    "p": (4, 3),
    "q": (3, 6),
    "qt": (6, 3),
    "c": (6,),
    "e": (3,),
    "k": (3, 5, 3, 1),
    "o": (6, 3, 1, 1),
    "w": (6, 3, 3, 1),
    "low": (),
    "six": (),
}
FORMS = {
    "MatMuls": ("float[n, 4] x", "z = MatMul (x, p)\n t = MatMul (z, q)\n y = Add (t, c)"),
    "without a bias": ("float[n, 4] x", "z = MatMul (x, p)\n y = MatMul (z, q)"),
    "Gemms": (
        "float[n, 4] x",
        "z = Gemm <alpha = 2.0> (x, p, e)\n y = Gemm <beta = 0.5, transB = 1> (z, qt, c)",
    ),
    "Convs": (
        "float[2, 5, 9, 7] x",
        "h = Relu(x)\n z = Conv <pads = [1, 0, 1, 0], strides = [2, 1]>(h, k)\n y = Conv (z, o, c)",
    ),
}
NOT_PAIRS = {
    "between is read twice": "z = MatMul (x, p)\n t = MatMul (z, q)\n s = ReduceSum (z)\n"
    " y = Add (t, s)",
    "the first bias can't be made up for": "z = Gemm (x, p, e)\n y = MatMul (z, q)",
    "something lies between": "s = MatMul (x, p)\n z = Relu (s)\n y = MatMul (z, q)",
}


def model(reads: str, nodes: str) -> ir.Model:
    rng = np.random.default_rng(4)
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g ({reads}) => (float y) {{ {nodes} }}
    """
    proto = onnx.parser.parse_model(text)
    rank = 4 if "Conv" in nodes else 2
    proto.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * rank)
    )
    for name, shape in SIZES.items():
        if any(name in node.input for node in proto.graph.node):
            array = np.float32(6 if name == "six" else 0)
            if shape:
                array = rng.normal(size=shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def pair_in(made: ir.Model):
    facts = Facts(made)
    name = next(n for n in made.graph.initializers if n in {"q", "qt", "o", "w"})
    last = last_factor(name, facts.scopes[0], facts)
    assert isinstance(last, LastFactor)
    return pair_with(last, facts.scopes[0], facts)


def sides(made: ir.Model, pair) -> tuple[np.ndarray, np.ndarray]:
    """Observations of x and y, features last."""
    shape = [5 if not isinstance(d, int) else d for d in made.graph.inputs[0].shape]
    feeds = {"x": np.random.default_rng(5).normal(size=shape).astype(np.float32)}
    read = (pair.first.read, pair.last.made)
    wanted = [n for s in read for n in s.values if n != "x"]
    arrays = feeds | Session(made, optimize=False, outputs=wanted).run(feeds)
    rows = [s.rows(arrays[s.values[0]], arrays) for s in read]
    return tuple(r.reshape(-1, r.shape[-1]).astype(np.float64) for r in rows)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_read_and_written(form):
    made = model(*FORMS[form])
    pair = pair_in(made)
    inputs, outputs = sides(made, pair)
    np.testing.assert_allclose(inputs @ pair.product().T + pair.offset, outputs, atol=1e-4)
    rng = np.random.default_rng(6)
    upper = rng.normal(size=pair.last.factor().shape)
    lower = rng.normal(size=pair.first.factor().shape)
    offset = rng.normal(size=6) if pair.last.addend is not None else pair.offset
    scope = Facts(made).scopes[0]
    patch = pair.written(scope, upper, lower, offset)
    patch.check()
    patch.apply(Names(made), pass_name="refit", number=1)
    inputs, outputs = sides(made, pair)
    np.testing.assert_allclose(inputs @ (upper @ lower).T + offset, outputs, atol=1e-4)


@pytest.mark.parametrize("nodes", NOT_PAIRS.values(), ids=NOT_PAIRS)
def test_only_what_stands_alone_is_a_pair(nodes):
    assert pair_in(model("float[n, 4] x", nodes)) is None


def test_a_last_kernel_with_taps_makes_no_pair():
    nodes = "h = Relu (x)\n z = Conv (h, k)\n y = Conv (z, w, c)"
    assert pair_in(model("float[2, 5, 9, 7] x", nodes)) is None


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("t = MatMul (x, p)\n y = Relu (t)", [0.0, 0.0, 3.0, 7.0]),
        ("t = MatMul (x, p)\n y = LeakyRelu <alpha = 0.5> (t)", [-1.0, 0.0, 3.0, 7.0]),
        ("t = MatMul (x, p)\n y = LeakyRelu (t)", [-0.02, 0.0, 3.0, 7.0]),
        ("t = MatMul (x, p)\n y = Clip (t, low, six)", [0.0, 0.0, 3.0, 6.0]),
        ("t = MatMul (x, p)\n y = Clip (t, , six)", [-2.0, 0.0, 3.0, 6.0]),
        ("t = MatMul (x, p)\n y = Gelu (t)", None),
        ("t = MatMul (x, p)\n s = Relu (t)\n y = Add (s, t)", None),
        ("low2 = Abs (low)\n t = MatMul (x, p)\n y = Clip (t, low2)", None),
    ],
)
def test_an_activation_is_known_by_what_it_does(nodes, expected):
    made = model("float[n, 4] x", nodes)
    value = next(o for node in made.graph for o in node.outputs if o.name == "t")
    found = activation_behind(value, Facts(made))
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found(np.array([-2.0, 0.0, 3.0, 7.0])), expected)
