from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.model.scope import Scope, inner_nodes, scopes, subgraphs

_TEXT = """
<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
g (float[N] x, bool c) => (float[N] y) {
  [choose] y = If (c) <
    then_branch = yes () => (float[N] t) {
      t = If (c) <
        then_branch = deep () => (float[N] d) { d = Relu(x) },
        else_branch = deep2 () => (float[N] d2) { d2 = Neg(x) }
      >
    },
    else_branch = no () => (float[N] e) { e = my.F(x) }
  >
}
<domain: "my", opset_import: ["" : 17]>
F (a) => (b) {
  t = Constant<value = bool {1}>()
  b = If (t) <then_branch = in_f () => (r) { r = Abs(a) },
              else_branch = in_f2 () => (s) { s = Neg(a) }>
}
"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(_TEXT))


@pytest.fixture
def by_path(model: ir.Model) -> dict[str, Scope]:
    return {scope.path: scope for scope in scopes(model)}


def test_every_scope_is_listed_outer_before_inner(by_path):
    assert list(by_path) == [
        "graph",
        "graph/choose.then_branch",
        "graph/choose.then_branch/If.then_branch",
        "graph/choose.then_branch/If.else_branch",
        "graph/choose.else_branch",
        "function my::F",
        "function my::F/If.then_branch",
        "function my::F/If.else_branch",
    ]


def test_a_scope_sees_what_is_around_it(by_path):
    main, branch = by_path["graph"], by_path["graph/choose.then_branch"]
    deep = by_path["graph/choose.then_branch/If.then_branch"]
    other = by_path["graph/choose.else_branch"]
    assert deep.sees(main.graph)
    assert deep.sees(branch.graph)
    assert deep.sees(deep.graph)
    assert not main.sees(branch.graph)
    assert not deep.sees(other.graph)
    assert not by_path["function my::F"].sees(main.graph)
    assert not main.sees(None)


def test_only_the_main_graph_is_main(by_path):
    assert [path for path, scope in by_path.items() if scope.is_main] == ["graph"]
    inside = [path for path, scope in by_path.items() if scope.in_function]
    assert inside == [path for path in by_path if path.startswith("function")]


def test_depth_and_outermost(by_path):
    deep = by_path["graph/choose.then_branch/If.then_branch"]
    assert deep.depth == 2
    assert deep.outermost == by_path["graph"]
    assert by_path["function my::F/If.then_branch"].outermost == by_path["function my::F"]


def test_scopes_are_equal_by_graph(model, by_path):
    again = Scope(model.graph, "another name")
    assert again == by_path["graph"]
    assert len({again, by_path["graph"]}) == 1
    assert again != by_path["function my::F"]


def test_inner_nodes_are_found_at_every_depth(model):
    (choose,) = model.graph
    assert [node.op_type for node in inner_nodes(choose)] == ["If", "If", "Relu", "Neg", "F"]
    assert [name for name, _ in subgraphs(choose)] == ["then_branch", "else_branch"]
