"""Observed shapes are those of the values themselves, inside bodies and functions too."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.errors import DataError
from structopt_onnx.runtime.shapes import observed_shapes

EVERYTHING = """
<ir_version: 9, opset_import: ["": 19, "acme": 1]>
everything (float[N, 4] x, bool c, int64 n) => (float[P, 4] z)
<float[4] scale = {1, 2, 3, 4}>
{
    k = Constant <value: tensor = float[1, 4] {1, 2, 3, 4}> ()
    ks = Constant <value_ints = [1, 2, 3]> ()
    kf = Constant <value_float = 1.5> ()
    h = Mul(x, scale)
    y = If (c) <
        then_branch = then_body () => (float[N, 4] a) { inner = Neg(h)  a = Abs(inner) },
        else_branch = else_body () => (float[M, 4] b) {
            other = Concat<axis = 0>(h, h)
            b = Abs(other)
        }
    >
    w = acme.Twice(y)
    u, , inverse = Unique <axis = 0> (w)
    z = Loop (n, , x) <
        body = loop_body (int64 i, bool ci, float[A, 4] state) => (bool co, float[B, 4] next) {
            co = Identity(ci)
            next = Concat<axis = 0>(state, x)
        }
    >
}
<domain: "acme", opset_import: ["": 19]>
Twice (p) => (r) { q = Concat<axis = 0>(p, p)  r = Neg(q) }
"""


def feeds(rows, *, condition, steps):
    return {
        "x": np.ones((rows, 4), np.float32),
        "c": np.array(condition),
        "n": np.array(steps, np.int64),
    }


def model():
    return ir.from_proto(onnx.parser.parse_model(EVERYTHING))


def test_every_kind_of_value_is_observed():
    shapes = observed_shapes(model(), feeds(3, condition=True, steps=2))
    expected = {
        "x": (3, 4),
        "c": (),
        "scale": (4,),
        "k": (1, 4),
        "ks": (3,),
        "kf": (),
        "h": (3, 4),
        "inner": (3, 4),
        "y": (3, 4),
        "w": (6, 4),
        "u": (1, 4),
        "inverse": (6,),
        "next": (9, 4),  # the last of two iterations
        "z": (9, 4),
    }
    assert expected.items() <= shapes.items()


def test_only_the_branch_taken_is_observed_and_dynamic_axes_follow_the_feed():
    shapes = observed_shapes(model(), feeds(5, condition=False, steps=1))
    assert "inner" not in shapes
    assert shapes["other"] == (10, 4)
    assert shapes["y"] == (10, 4)
    assert shapes["w"] == (20, 4)
    assert shapes["z"] == (10, 4)


def test_the_model_and_its_node_names_stay_as_they_were():
    before = model()
    names = [node.name for node in before.graph.all_nodes()]
    observed_shapes(before, feeds(2, condition=True, steps=1))
    assert [node.name for node in before.graph.all_nodes()] == names


def test_one_name_for_different_values_is_left_out():
    twice = ir.from_proto(
        onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 19]>
        twice (float[N] x, bool c) => (float[A] y, float[B] z)
        {
            y = If (c) <
                then_branch = first () => (float[N] a) { t = Neg(x)  a = Abs(t) },
                else_branch = second () => (float[N] b) { b = Abs(x) }
            >
            z = If (c) <
                then_branch = third () => (float[M] d) { t = Concat<axis = 0>(x, x)  d = Abs(t) },
                else_branch = fourth () => (float[N] e) { e = Abs(x) }
            >
        }
        """)
    )
    shapes = observed_shapes(twice, {"x": np.ones(3, np.float32), "c": np.array(True)})
    assert "t" not in shapes
    assert (shapes["a"], shapes["d"]) == ((3,), (6,))


def test_operator_that_onnxruntime_expands_is_observed():
    expanded = ir.from_proto(
        onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 22]>
        expanded (float[N, 3] x) => (float[N, 3] y)
        { norm = MeanVarianceNormalization<axes = [0]>(x)
          soft = Mish(norm)
          soft2, mask = Dropout(soft)
          y = Neg(soft2) }
        """)
    )
    shapes = observed_shapes(expanded, {"x": np.ones((2, 3), np.float32)})
    assert shapes["soft"] == shapes["norm"] == shapes["mask"] == (2, 3)


def test_nodes_of_equal_names_are_told_apart():
    equal = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 19]>
        equal (float[N] x) => (float[A] y) {
            t = Concat<axis = 0>(x, x)
            y = Concat<axis = 0>(t, x)
        }
        """)
    for node in equal.graph.node:
        node.name = "same"
    shapes = observed_shapes(ir.from_proto(equal), {"x": np.ones(2, np.float32)})
    assert (shapes["t"], shapes["y"]) == ((4,), (6,))


def test_feeds_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="no data for"):
        observed_shapes(model(), {})
