from __future__ import annotations

import numpy as np
import onnx.helper
import onnx_ir as ir
import pytest

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.patch import Names
from structopt_onnx.passes.low_rank.factor_matmul import FactorMatmul
from structopt_onnx.passes.recurrence.unroll_recurrence import UnrollRecurrence
from structopt_onnx.passes.sharing.share_initializers import ShareInitializers
from structopt_onnx.rewriting.cost import Cost, graph_cost, node_macs
from structopt_onnx.rewriting.passes import Choice
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget


def _macs(op_type: str, inputs, *outputs, **attributes) -> int:
    made = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]
    return node_macs(op_type, {a.name: a for a in made}, inputs, outputs)


@pytest.mark.parametrize(
    ("counted", "by_hand"),
    [
        (_macs("Gemm", [(2, 3), (3, 4), (4,)], (2, 4)), 2 * 3 * 4),
        (_macs("Gemm", [(3, 2), (3, 4)], (2, 4), transA=1), 2 * 3 * 4),
        (_macs("Gemm", [(2, 3), (4, 3)], (2, 4), transB=1), 2 * 3 * 4),
        (_macs("MatMul", [(5, 2, 3), (3, 4)], (5, 2, 4)), 5 * 2 * 3 * 4),
        (_macs("MatMul", [(3,), (3, 4)], (4,)), 3 * 4),
        (_macs("MatMul", [(3,), (3,)], ()), 3),
        (_macs("MatMul", [(2, 3), (5, 3, 4)], (5, 2, 4)), 5 * 2 * 3 * 4),
        (_macs("MatMul", [(0, 3), (3, 4)], (0, 4)), 0),
        (_macs("MatMulInteger", [(2, 3), (3, 4)], (2, 4)), 2 * 3 * 4),
        (
            _macs("QLinearMatMul", [(2, 3), (), (), (3, 4), (), (), (), ()], (2, 4)),
            2 * 3 * 4,
        ),
        # 8 filters over 4 channels of 3 x 3, 10 x 10 positions.
        (_macs("Conv", [(1, 4, 12, 12), (8, 4, 3, 3)], (1, 8, 10, 10)), 8 * 100 * 4 * 9),
        # In 4 groups each filter sees one channel.
        (_macs("Conv", [(1, 4, 12, 12), (8, 1, 3, 3)], (1, 8, 10, 10), group=4), 8 * 100 * 9),
        (_macs("Conv", [(2, 4, 9), (8, 4, 3), (8,)], (2, 8, 7)), 2 * 8 * 7 * 4 * 3),
        (
            _macs(
                "QLinearConv",
                [(1, 4, 12, 12), (), (), (8, 4, 3, 3), (8,), (8,), (), ()],
                (1, 8, 10, 10),
            ),
            8 * 100 * 4 * 9,
        ),
        # Every input pixel spreads over 3 x 3 outputs of 8 channels.
        (_macs("ConvTranspose", [(1, 4, 5, 5), (4, 8, 3, 3)], (1, 8, 7, 7)), 4 * 25 * 8 * 9),
        (
            _macs("ConvTranspose", [(1, 4, 5, 5), (4, 2, 3, 3)], (1, 8, 7, 7), group=4),
            4 * 25 * 2 * 9,
        ),
        # 7 steps, batch 2, 2 directions, 4 gates of 6 units over 5 features and 6 states.
        (
            _macs("LSTM", [(7, 2, 5), (2, 24, 5), (2, 24, 6)], (7, 2, 2, 6)),
            7 * 2 * 2 * 24 * (5 + 6),
        ),
        (
            _macs("GRU", [(7, 2, 5), (1, 18, 5), (1, 18, 6)], (7, 1, 2, 6)),
            7 * 2 * 18 * (5 + 6),
        ),
        (_macs("RNN", [(7, 2, 5), (1, 6, 5), (1, 6, 6)], None), 7 * 2 * 6 * (5 + 6)),
        (_macs("LSTM", [(7, 2, 5), (2, 24, 5)], None), 7 * 2 * 2 * 24 * 5),
        (_macs("Add", [(2, 3), (2, 3)], (2, 3)), 0),
        (_macs("MatMul", [(2, 3), None], (2, 4)), 0),
        (_macs("MatMul", [(2, 3), (3, 4)], None), 0),
        (_macs("Relu", [(2, 3)], (2, 3)), 0),
        (_macs("Constant", [], (2, 3)), 0),
    ],
)
def test_products_are_counted(counted: int, by_hand: int):
    assert counted == by_hand


def test_costs_add_up():
    one = Cost(1, 2, 3, 4)
    assert one + one == Cost(2, 4, 6, 8)
    assert (one + Cost(seconds=1.5)).seconds == 1.5
    assert (Cost(seconds=1.0) + Cost(seconds=0.5)).seconds == 1.5


def test_objectives():
    cost = Cost(parameters=1, bytes=2, macs=3, nodes=4, seconds=5.0)
    figures = [cost.of(o) for o in ("parameters", "bytes", "macs", "time")]
    assert figures == [1, 2, 3, 5.0]
    assert Cost(macs=3).of("time") == 3


def test_a_model_costs_what_its_parts_cost(build):
    model = build("""
        g (float[2,3] x, bool c) => (float[2,4] y)
        <float[3,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, int64[2] i = {1, 2}> {
          k = Constant<value = float[4] {1, 2, 3, 4}>()
          p = MatMul(x, w)
          q = Add(p, k)
          y = If (c) <then_branch = yes () => (float[2,4] t) <float[4] v = {1, 2, 3, 4}> {
                        t = Add(q, v) },
                      else_branch = no () => (float[2,4] e) { e = my.F(q) }>
        }
        <domain: "my", opset_import: ["" : 17]>
        F (a) => (b) { b = Relu(a) }
    """)
    facts = Facts(model, shapes={"p": (2, 4)})
    assert graph_cost(model, facts) == Cost(
        parameters=12 + 4 + 4, bytes=48 + 16 + 16 + 16, macs=24, nodes=4 + 2 + 1
    )


def test_an_operator_of_another_domain_is_not_counted(build):
    model = build("""
        g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = my.MatMul(x, w) }
        <domain: "my", opset_import: ["" : 17]>
        MatMul (a, b) => (c) { c = Gemm(a, b) }
    """)
    assert graph_cost(model, Facts(model)) == Cost(nodes=2)


# A patch costs what the model's cost changes by ------------------------------------------------


def _matmul_model(op: str, dtype: type = np.float32) -> ir.Model:
    rng = np.random.default_rng(0)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(rng.standard_normal((32, 24)).astype(dtype), "w")
    bias = onnx.numpy_helper.from_array(rng.standard_normal(24).astype(dtype), "b")
    nodes = (
        [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
        if op == "Gemm"
        else [
            onnx.helper.make_node("MatMul", ["x", "w"], ["p"]),
            onnx.helper.make_node("Add", ["p", "b"], ["y"]),
        ]
    )
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [tensor("x", kind, [5, 32])],
        [tensor("y", kind, [5, 24])],
        initializer=[weight, bias],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


def _differences(patch, model: ir.Model, facts: Facts) -> tuple[Cost, Cost]:
    before, after = patch_cost(patch, facts, CpuTarget())
    whole = graph_cost(model, facts)
    patch.check()
    patch.apply(Names(model), pass_name="test", number=1)
    now = graph_cost(model, Facts(model, shapes=facts.shapes))
    fields = ("parameters", "bytes", "macs", "nodes")
    predicted = Cost(**{f: getattr(after, f) - getattr(before, f) for f in fields})
    return predicted, Cost(**{f: getattr(now, f) - getattr(whole, f) for f in fields})


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_factorization_costs_what_it_changes(op: str, dtype: type):
    model = _matmul_model(op, dtype)
    facts = Facts(model, shapes={"p": (5, 24)})
    scope = facts.scopes[0]
    (choice,) = FactorMatmul(rank_multiple=8).propose(scope, facts)
    assert isinstance(choice, Choice)
    option = choice.options[0]
    predicted, real = _differences(option.patch(scope, facts), model, facts)
    assert predicted == real
    rank = 8
    item = np.dtype(dtype).itemsize
    elements = rank * (32 + 24) - 32 * 24
    assert real == Cost(elements, elements * item, 5 * elements, nodes=1)
    stated = (option.after.macs - option.before.macs, option.after.bytes - option.before.bytes)
    assert stated == (real.macs, real.bytes)


def test_sharing_costs_what_it_changes(build):
    model = build("""
        g (float[2,3] x, bool c) => (float[2,3] y)
        <float[3] a = {1, 2, 3}, float[3] b = {1, 2, 3}> {
          p = Add(x, a)
          q = Mul(p, b)
          y = If (c) <then_branch = yes () => (float[2,3] t) <float[3] v = {1, 2, 3}> {
                        t = Add(q, v) },
                      else_branch = no () => (float[2,3] e) { e = Neg(q) }>
        }
    """)
    facts = Facts(model)
    (patch,) = ShareInitializers().propose(facts.scopes[0], facts)
    predicted, real = _differences(patch, model, facts)
    assert predicted == real == Cost(parameters=-6, bytes=-24)


def test_products_count_where_types_are_not_declared(build):
    model = build("""
        g (float[4,1,3] x) => (float[4,1,1,2] y)
        <float[1,2,3] w = {1, 2, 3, 4, 5, 6}, float[1,2,2] r = {1, 2, 3, 4}> {
          a = Relu(x)
          y = RNN<hidden_size = 2>(a, w, r)
        }
    """)
    facts = Facts(model, shapes={"a": (4, 1, 3)})
    (patch,) = UnrollRecurrence(target="nnapi").propose(facts.scopes[0], facts)
    before, after = patch_cost(patch, facts, CpuTarget())
    assert before.macs == 4 * 2 * (3 + 2)
    assert after.macs == 4 * 2 * 3 + 3 * 2 * 2  # the first step has no state to multiply


def test_time_is_the_longer_of_arithmetic_and_reading():
    target = CpuTarget(macs_per_second=10, bytes_per_second=5, seconds_per_node=1)
    assert target.seconds(Cost(macs=20, bytes=5, nodes=3)) == 2 + 3
    assert target.seconds(Cost(macs=20, bytes=50)) == 10
