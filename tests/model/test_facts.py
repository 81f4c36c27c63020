from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.linalg.moments import Moments
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.statistic import Statistic

_TEXT = """
<ir_version: 8, opset_import: ["" : 17, "my" : 3]>
g (float[N,3] x, float[2] d, int64[2] s) => (float[N,3] y)
<float[2] d = {1, 2}, float[3] w = {1, 2, 3}, int64[2] dims = {4, 5}, int64[1] minus = {-1},
 int64[2] huge = {1000000, 1000000}>
{
  c = Constant<value = float[2] {7, 8}>()
  k = Constant<value_int = 3>()
  zeros = ConstantOfShape(dims)
  ones = ConstantOfShape<value = int64[1] v = {1}>(dims)
  open = ConstantOfShape(s)
  wrong = ConstantOfShape(minus)
  large = ConstantOfShape(huge)
  r = Relu(x)
  q = my.Same(r)
  y = my.Same(q)
}
<domain: "my", opset_import: ["" : 15]>
Same (a) => (b) { b = Identity(a) }
"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(_TEXT))


@pytest.fixture
def values(model) -> dict[str, ir.Value]:
    graph = model.graph
    made = [output for node in graph for output in node.outputs]
    return {v.name or "": v for v in (*graph.inputs, *graph.initializers.values(), *made)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("w", np.array([1, 2, 3], np.float32)),
        ("c", np.array([7, 8], np.float32)),
        ("k", np.array(3)),
        ("zeros", np.zeros((4, 5), np.float32)),
        ("ones", np.ones((4, 5), np.int64)),
    ],
)
def test_constants_are_known(model, values, name: str, expected):
    found = Facts(model).array(values[name])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("name", ["x", "d", "open", "wrong", "large", "r"])
def test_what_may_change_is_no_constant(model, values, name: str):
    assert Facts(model).tensor(values[name]) is None
    assert Facts(model).array(values[name]) is None


def test_looking_at_a_constant_does_not_change_it(model, values):
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    Facts(model).array(values["c"])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_is_known_about_no_value(model):
    facts = Facts(model)
    assert (facts.tensor(None), facts.dims(None), facts.rank(None)) == (None, None, None)
    assert facts.concrete(None) is None


def test_shapes(model, values):
    facts = Facts(model)
    assert facts.dims(values["x"]) == (None, 3)
    assert facts.dims(values["zeros"]) == (4, 5)
    assert facts.rank(values["x"]) == 2
    assert facts.dims(values["q"]) is None
    assert facts.rank(values["q"]) is None


def test_what_is_not_declared_is_inferred(model, values):
    facts = Facts(model)
    assert values["r"].shape is None
    assert facts.shape(values["r"]) == ("N", 3)
    assert facts.dims(values["r"]) == (None, 3)
    assert facts.dtype(values["r"]) == ir.DataType.FLOAT
    assert facts.shape(values["ones"]) == (4, 5)
    assert facts.dtype(values["ones"]) == ir.DataType.INT64
    assert facts.dtype(values["q"]) is None
    assert values["r"].shape is None, "asking changes nothing"


def test_shapes_are_inferred_across_scopes():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4,9] x, float[2,4,3] w, bool c) => (float[N,2,P] y)
    {
      h = Relu(x)
      y = If (c) <then_branch = yes () => (float[N,2,P] t) { k = Conv(h, w)
      t = Neg(k) }, else_branch = no () => (float[N,2,P] e) { e = Conv(h, w) }>
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    facts = Facts(model)
    (inner,) = (s for s in facts.scopes if s.path.endswith("then_branch"))
    assert facts.shape(inner.graph[0].outputs[0]) == ("N", 2, 7)


def test_shapes_to_count_with(model, values):
    facts = Facts(model, shapes={"r": (6, 3)})
    assert facts.concrete(values["r"]) == (6, 3)
    assert facts.concrete(values["x"]) == (1, 3)
    assert facts.concrete(values["y"]) == (1, 3)
    assert facts.dims(values["r"]) == (None, 3), "legality does not rest on observed shapes"


def test_opsets_of_functions_are_their_own(model):
    facts = Facts(model)
    main, function = facts.scopes
    assert facts.opset(main) == 17
    assert facts.opset(function) == 15
    assert facts.opset(main, "my") == 3
    assert facts.opset(main, "other") is None


def test_statistics_are_handed_on(model):
    wanted = Statistic(("r",), -1)
    moments = Moments(1, np.zeros(3), np.eye(3))
    facts = Facts(model, statistics={wanted: moments})
    assert facts.statistic(wanted) is moments
    assert facts.statistic(Statistic(("x",), -1)) is None
