from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.region import regions
from structopt_onnx.rewriting.target import CpuTarget

_PRODUCT = """
g (float[N,8] x) => (float[N,4] y)
<float[8,4] w = {%s}, float[4] c = {1, 2, 3, 4}> {
  ["one"] t = MatMul(x, w)
  ["two"] y = Add(t, c)
}
"""


def _product(build, fill: float = 1.0, **options) -> ir.Model:
    return build(_PRODUCT % ", ".join([str(fill)] * 32), **options)


def _facts(model, **shapes):
    return PassManager(CpuTarget(), (), shapes).facts(model)


def _thin(model, facts, rank=2) -> Patch:
    """MatMul and Add become two products and an Add."""
    scope = facts.scopes[0]
    product, add = list(scope.graph)
    first = Fresh("a", ir.tensor(np.ones((8, rank), np.float32)))
    second = Fresh("b", ir.tensor(np.ones((rank, 4), np.float32)))
    thin, wide, out = Fresh("thin"), Fresh("wide"), Fresh("out")
    new = (
        NewNode("MatMul", (product.inputs[0], first), (thin,)),
        NewNode("MatMul", (thin, second), (wide,)),
        NewNode("Add", (wide, add.inputs[1]), (out,)),
    )
    edit = Edit((add, product), new, rewire={add.outputs[0]: out})
    return Patch("thin", product, {scope: edit})


def test_both_sides_stand_alone(build):
    model = _product(build)
    facts = _facts(model, x=(3, 8))
    before, after = regions(_thin(model, facts), facts)
    assert before is not None
    assert after is not None
    assert [node.op_type for node in before.graph.node] == ["MatMul", "Add"]
    assert [node.op_type for node in after.graph.node] == ["MatMul", "MatMul", "Add"]
    assert [i.shape for i in before.inputs] == [(3, 8)]
    assert [w.shape for w in after.weights] == [(8, 2), (2, 4), (4,)]
    assert after.weight_bytes == 4 * (16 + 8 + 4)


def test_equal_shapes_have_equal_signatures(build):
    one, other = _product(build), _product(build, fill=2.0)
    texts = [
        [r.signature() for r in regions(_thin(m, f), f)]
        for m in (one, other)
        for f in [_facts(m, x=(3, 8))]
    ]
    assert texts[0] == texts[1]
    assert texts[0][0] == (
        "MatMul(i0:in float[3,8], c1:w float[8,4]); Add(v0, c3:w float[4]) [opset 17]"
    )


@pytest.mark.parametrize(("rank", "rows"), [(3, 3), (2, 5)])
def test_other_shapes_have_other_signatures(build, rank, rows):
    model = _product(build)
    facts = _facts(model, x=(3, 8))
    usual = regions(_thin(model, facts), facts)[1]
    facts = _facts(model, x=(rows, 8))
    assert regions(_thin(model, facts, rank), facts)[1].signature() != usual.signature()


def test_attributes_and_opset_are_in_the_signature(build):
    def signature(pads: str, opset: int = 17) -> str:
        model = build(
            f"g (float[1,1,4,4] x) => (float[1,1,H,W] y) <float[1,1,3,3] w = {{{'1,' * 8}1}}>"
            f"{{ y = Conv <pads = {pads}> (x, w) }}",
            opset=opset,
        )
        facts = _facts(model)
        node = next(iter(facts.scopes[0].graph))
        out = Fresh("out")
        edit = Edit((node,), (NewNode("Relu", (node.inputs[0],), (out,)),), rewire={})
        edit = Edit(edit.remove, edit.add, rewire={node.outputs[0]: out})
        return regions(Patch("t", node, {facts.scopes[0]: edit}), facts)[0].signature()

    texts = {signature("[1,1,1,1]"), signature("[0,0,0,0]"), signature("[1,1,1,1]", opset=13)}
    assert len(texts) == 3


def _identity(model, facts) -> Patch:
    """Everything becomes an Identity of the first node's last input."""
    scope = facts.scopes[0]
    nodes = tuple(scope.graph)
    out = Fresh("out")
    edit = Edit(
        nodes,
        (NewNode("Identity", (nodes[0].inputs[0],), (out,)),),
        rewire={nodes[-1].outputs[0]: out},
    )
    return Patch("t", nodes[0], {scope: edit})


def test_indices_may_be_any_row_of_their_table(build):
    model = build(
        f"g (int64[N] ids) => (float[N,2] y) <float[9,2] e = {{{'1,' * 17}1}}>"
        "{ y = Gather(e, ids) }"
    )
    facts = _facts(model, ids=(5,))
    (inlet,) = regions(_identity(model, facts), facts)[0].inputs
    assert (inlet.shape, inlet.low, inlet.high) == ((5,), 0, 8)


def test_sequences_are_run_to_their_end(build):
    model = build(
        "g (float[7,2,3] x, int32[2] n) => (float[7,1,2,1] y) <float[1,1,3] w = {1,2,3},"
        " float[1,1,1] r = {1}> { y = RNN <hidden_size = 1> (x, w, r, , n) }"
    )
    before = regions(_identity(model, _facts(model)), _facts(model))[0]
    assert [(i.low, i.high) for i in before.inputs] == [(0, 0), (7, 7)]
    assert list(before.graph.node[0].input) == ["i0", "c1", "c2", "", "i3"]


def test_integer_constants_keep_their_values(build):
    model = build("g (float[2,3] x) => (float[3,2] y) <int64[2] s = {3, 2}> { y = Reshape(x, s) }")
    before = regions(_identity(model, _facts(model)), _facts(model))[0]
    (kept,) = before.graph.initializer
    assert onnx.numpy_helper.to_array(kept).tolist() == [3, 2]
    assert "[3, 2]" in before.signature()


@pytest.mark.parametrize(
    "text",
    [
        "g (string[2] x) => (string[2] y) { y = Identity(x) }",
        "g (float[2] x) => (float[2] y) { y = my.Op(x) }",
        """g (bool c, float[2] x) => (float[2] y) { y = If(c) <
        then_branch = a () => (float[2] u) { u = Identity(x) },
        else_branch = b () => (float[2] v) { v = Neg(x) }> }""",
    ],
    ids=["strings", "other domain", "subgraph"],
)
def test_what_cannot_be_timed_alone_is_left_out(build, text):
    model = build(text)
    assert regions(_identity(model, _facts(model)), _facts(model))[0] is None


def test_unknown_shapes_are_left_out(build):
    model = build("g (float x) => (float y) { t = Relu(x)\n y = Abs(t) }")
    facts = _facts(model)
    first, node = facts.scopes[0].graph
    first.inputs[0].shape = node.inputs[0].shape = None
    out = Fresh("out")
    edit = Edit(
        (node,), (NewNode("Neg", (node.inputs[0],), (out,)),), rewire={node.outputs[0]: out}
    )
    assert regions(Patch("t", node, {facts.scopes[0]: edit}), facts) == (None, None)
