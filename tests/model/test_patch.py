from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.errors import InternalError
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.patch import PASS_KEY, PATCH_KEY, REPLACED_KEY, Names, Patch
from structopt_onnx.model.saving import to_proto
from structopt_onnx.model.scope import scopes
from structopt_onnx.model.validity import problems

_TEXT = """
<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
g (float[N,4] x, bool c, float[4] d) => (float[N,4] y, float[N,4] z, float[2] k)
<float[4] d = {1, 2, 3, 4}, float[4] w = {1, 2, 3, 4}, int64[2] i = {0, 1}, float[2] k = {1, 2}>
{
  [relu] r = Relu(x)
  [add] a = Add(r, w)
  [split] s, t = Split<axis = 1>(a, i2)
  [if] y = If (c) <
    then_branch = yes () => (float[N,4] e) <float[4] v = {1, 2, 3, 4}> { [inner] e = Mul(a, v) },
    else_branch = no () => (float[N,4] f) { [other] f = Neg(r) }
  >
  [out] z = Sub(a, d)
}
<domain: "my", opset_import: ["" : 15]>
F (p) => (q) { [in_f] q = Relu(p) }
""".replace("Split<axis = 1>(a, i2)", "Split<axis = 1>(a)")


class Sample:
    """A model with its values, nodes and scopes by name."""

    def __init__(self) -> None:
        self.model = ir.from_proto(onnx.parser.parse_model(_TEXT))
        self.scopes = {scope.path: scope for scope in scopes(self.model)}
        self.main = self.scopes["graph"]
        self.yes = self.scopes["graph/if.then_branch"]
        self.no = self.scopes["graph/if.else_branch"]
        self.values: dict[str, ir.Value] = {}
        self.nodes: dict[str, ir.Node] = {}
        for scope in self.scopes.values():
            graph = scope.graph
            for value in (*graph.inputs, *graph.initializers.values()):
                self.values[value.name or ""] = value
            for node in graph:
                self.nodes[node.name or ""] = node
                self.values |= {value.name or "": value for value in node.outputs}

    def apply(self, patch: Patch, number: int = 1) -> tuple[str, ...]:
        patch.check()
        replaced = patch.apply(Names(self.model), pass_name="test", number=number)
        for scope in scopes(self.model):
            scope.graph.sort()
        assert problems(self.model) == []
        return replaced

    def patch(self, edit: Edit | dict, anchor: str = "add") -> Patch:
        edits = edit if isinstance(edit, dict) else {self.main: edit}
        return Patch("a test", self.nodes[anchor], edits)

    def bytes(self) -> bytes:
        return to_proto(self.model).SerializeToString(deterministic=True)


@pytest.fixture
def s() -> Sample:
    return Sample()


def _floats(*numbers: float) -> ir.Tensor:
    return ir.tensor(np.array(numbers, np.float32))


# Malformed edits --------------------------------------------------------------------------------


def _no_maker(s):
    return Edit((s.nodes["add"],), rewire={s.values["a"]: Fresh("q")}), "made by no node"


def _read_before_made(s):
    one, two = Fresh("one"), Fresh("two")
    add = (NewNode("Relu", (two,), (one,)), NewNode("Neg", (s.values["x"],), (two,)))
    return Edit((), add), "made by no node before it is read"


def _made_twice(s):
    one = Fresh("one")
    node = NewNode("Relu", (s.values["x"],), (one,))
    return Edit((), (node, NewNode("Neg", (s.values["x"],), (one,)))), "made twice"


def _output_with_data(s):
    node = NewNode("Relu", (s.values["x"],), (Fresh("q", _floats(1)),))
    return Edit((), (node,)), "has data or no name"


def _output_without_name(s):
    return Edit((), (NewNode("Relu", (s.values["x"],), (Fresh(""),)),)), "has data or no name"


def _constant_without_name(s):
    node = NewNode("Relu", (Fresh("", _floats(1)),), (Fresh("q"),))
    return Edit((), (node,)), "constant has no name"


def _initializer_without_data(s):
    return Edit(initializers=(Fresh("q"),)), "has no data"


def _no_outputs(s):
    return Edit((), (NewNode("Relu", (s.values["x"],), ()),)), "makes nothing"


def _domain_not_imported(s):
    node = NewNode("Gelu", (s.values["x"],), (Fresh("q"),), domain="com.microsoft")
    return Edit((), (node,)), "is not imported"


def _still_read(s):
    return Edit((s.nodes["relu"],)), "is still read"


def _still_read_in_a_branch(s):
    return Edit((s.nodes["relu"], s.nodes["add"], s.nodes["split"]), rewire={}), "is still read"


def _graph_output_lost(s):
    return Edit((s.nodes["out"],)), "is a graph output"


def _node_of_another_scope(s):
    return Edit((s.nodes["inner"],)), "is not here"


def _removed_twice(s):
    node = s.nodes["split"]
    return Edit((node, node)), "removed twice"


def _reads_removed(s):
    q = Fresh("q")
    node = NewNode("Neg", (s.values["a"],), (q,))
    return Edit((s.nodes["add"],), (node,), rewire={s.values["a"]: q}), "is read"


def _reads_what_it_replaces(s):
    q = Fresh("q")
    return Edit((), (NewNode("Neg", (s.values["r"],), (q,)),), rewire={s.values["r"]: q}), (
        "read and replaced"
    )


def _chain_of_replacements(s):
    return Edit(rewire={s.values["a"]: s.values["r"], s.values["r"]: s.values["x"]}), (
        "read and replaced"
    )


def _reads_a_branch(s):
    q = Fresh("q")
    return Edit((), (NewNode("Neg", (s.values["v"],), (q,)),)), "not visible"


def _replaced_in_another_scope(s):
    return {s.yes: Edit(rewire={s.values["a"]: s.values["x"]})}, "is not here"


def _replaced_by_a_branch(s):
    return Edit(rewire={s.values["w"]: s.values["v"]}), "not visible"


def _output_by_existing(s):
    return Edit((s.nodes["out"],), rewire={s.values["z"]: s.values["a"]}), "made by a new node"


def _output_by_constant(s):
    fresh = Fresh("q", _floats(1))
    return Edit((s.nodes["out"],), rewire={s.values["z"]: fresh}), "made by a new node"


def _two_outputs_by_one(s):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["x"],), (q,))
    rewire = {s.values["y"]: q, s.values["z"]: q}
    return Edit((s.nodes["if"], s.nodes["out"]), (node,), rewire=rewire), "same replacement"


def _output_that_is_an_initializer(s):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["d"],), (q,))
    return Edit((), (node,), rewire={s.values["k"]: q}), "input or initializer"


def _dtype_of_existing(s):
    return Edit(rewire={s.values["w"]: s.values["i"]}), "is FLOAT, its replacement INT64"


def _dtype_of_constant(s):
    fresh = Fresh("q", ir.tensor(np.zeros(4)))
    return Edit(rewire={s.values["w"]: fresh}), "is FLOAT, its replacement DOUBLE"


def _dtype_of_node(s):
    q = Fresh("q")
    node = NewNode("Shape", (s.values["x"],), (q,))
    return Edit((s.nodes["out"],), (node,), rewire={s.values["z"]: q}), "its replacement INT64"


def _dtype_of_a_chain(s):
    q, p = Fresh("q"), Fresh("p")
    chain = (NewNode("Shape", (s.values["x"],), (q,)), NewNode("Neg", (q,), (p,)))
    return Edit((s.nodes["out"],), chain, rewire={s.values["z"]: p}), "its replacement INT64"


def _constant_of_siblings(s):
    shared = Fresh("shared", _floats(1, 2, 3, 4))
    node = NewNode("Relu", (shared,), (Fresh("u"),))
    return {s.yes: Edit(rewire={s.values["v"]: shared}), s.no: Edit((), (node,))}, "not visible"


def _edit_inside_a_removed_node(s):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["x"],), (q,))
    outer = Edit((s.nodes["if"],), (node,), rewire={s.values["y"]: q})
    return {s.main: outer, s.yes: Edit(rewire={s.values["v"]: s.values["w"]})}, (
        "lies inside a removed node"
    )


def _body_of_a_removed_node(s):
    q = Fresh("q")
    attributes = {a.name: a for a in s.nodes["if"].attributes.values()}
    node = NewNode("If", (s.values["c"],), (q,), attributes)
    return Edit((s.nodes["if"],), (node,), rewire={s.values["y"]: q}), "clone it"


def _body_that_reads_removed(s):
    inner = ir.node("Neg", [s.values["a"]], name="body")
    body = ir.Graph([], inner.outputs, nodes=[inner], name="body")
    node = NewNode("If", (s.values["c"],), (Fresh("q"),), {"then_branch": ir.AttrGraph("g", body)})
    return Edit(
        (s.nodes["add"],), (node,), rewire={s.values["a"]: s.values["r"]}
    ), "read after its node was removed"


def _data_of_no_initializer(s):
    return Edit(replace_data={s.values["x"]: _floats(1)}), "no initializer"


def _data_of_another_scope(s):
    return Edit(replace_data={s.values["v"]: _floats(1, 2, 3, 4)}), "no initializer of this scope"


def _data_of_another_shape(s):
    return Edit(replace_data={s.values["w"]: _floats(1)}), "new data of 'w' is FLOAT"


def _data_of_another_dtype(s):
    return Edit(replace_data={s.values["w"]: ir.tensor(np.zeros(4))}), "new data of 'w' is DOUBLE"


def _data_of_a_default(s):
    return Edit(replace_data={s.values["d"]: _floats(1, 2, 3, 4)}), "the caller can override"


_MALFORMED = [
    value
    for name, value in list(globals().items())
    if name.startswith("_")
    and callable(value)
    and getattr(value, "__code__", None)
    and value.__code__.co_varnames[:1] == ("s",)
]


@pytest.mark.parametrize("make", _MALFORMED, ids=lambda make: make.__name__)
def test_a_malformed_edit_is_refused_and_changes_nothing(s: Sample, make):
    edit, message = make(s)
    before = s.bytes()
    with pytest.raises(InternalError, match=message) as caught:
        s.patch(edit).check()
    assert "a test: in graph" in str(caught.value)
    assert s.bytes() == before


def test_all_malformed_edits_are_tried():
    assert len(_MALFORMED) == 37


# Applying ---------------------------------------------------------------------------------------


def test_a_new_node_takes_over_name_type_and_shape(s: Sample):
    old, q = s.values["z"], Fresh("anything")
    old.metadata_props["note"] = "kept"
    old.doc_string = "about z"
    node = NewNode("Mul", (s.values["a"], s.values["d"]), (q,))
    replaced = s.apply(s.patch(Edit((s.nodes["out"],), (node,), rewire={old: q})))
    new = s.model.graph.outputs[1]
    assert replaced == ("z",)
    assert new is not old
    assert (new.name, str(new.type), str(new.shape)) == ("z", "FLOAT", "[N,4]")
    assert (new.metadata_props, new.doc_string) == ({"note": "kept"}, "about z")
    assert new.producer().op_type == "Mul"


def test_types_of_new_values_are_inferred(s: Sample):
    p, q = Fresh("turned"), Fresh("q")
    nodes = (
        NewNode("Transpose", (s.values["x"],), (p,)),
        NewNode("Transpose", (p,), (q,), {"perm": (1, 0)}),
    )
    s.apply(s.patch(Edit((s.nodes["relu"],), nodes, rewire={s.values["r"]: q})))
    made = next(v for n in s.model.graph for v in n.outputs if v.name == "turned")
    assert (str(made.type), str(made.shape)) == ("FLOAT", "[4,N]")
    taken = next(v for n in s.model.graph for v in n.outputs if v.name == "r")
    assert (str(taken.type), str(taken.shape)) == ("FLOAT", "[N,4]")


def test_new_nodes_say_where_they_come_from(s: Sample):
    q = Fresh("q")
    node = NewNode("Mul", (s.values["a"], s.values["d"]), (q,))
    s.apply(s.patch(Edit((s.nodes["out"],), (node,), rewire={s.values["z"]: q})), number=7)
    new = s.model.graph.outputs[1].producer()
    assert new.metadata_props == {PASS_KEY: "test", PATCH_KEY: "7", REPLACED_KEY: "z"}
    marked = [n for sc in scopes(s.model) for n in sc.graph if PASS_KEY in n.metadata_props]
    assert marked == [new]


def test_at_most_eight_replaced_names_are_noted():
    text = "g (float[N] x) => (float[N] y) { " + "".join(
        f"a{k} = Relu({'x' if not k else f'a{k - 1}'})\n" for k in range(12)
    )
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{head}{text} y = Neg(a11) }}"))
    q, nodes = Fresh("q"), tuple(model.graph)
    node = NewNode("Neg", (model.graph.inputs[0],), (q,))
    edit = Edit(nodes, (node,), rewire={nodes[-1].outputs[0]: q})
    patch = Patch("all", nodes[0], {scopes(model)[0]: edit})
    patch.check()
    replaced = patch.apply(Names(model), pass_name="test", number=1)
    assert len(replaced) == 13
    noted = model.graph.outputs[0].producer().metadata_props[REPLACED_KEY]
    assert len(noted.split(",")) == 8


def test_names_never_clash(s: Sample):
    wishes = ["x", "e", "v", "w", "relu", "q", "q", "p"]
    nodes = tuple(NewNode("Relu", (s.values["x"],), (Fresh(wish),)) for wish in wishes)
    constants = tuple(Fresh(wish, _floats(1)) for wish in ("t", "q", "w"))
    s.apply(s.patch(Edit((), nodes, initializers=constants)))
    taken = [
        name
        for scope in scopes(s.model)
        for name in (
            *(v.name for v in scope.graph.inputs if not v.is_initializer()),
            *scope.graph.initializers,
            *(n.name for n in scope.graph),
            *(v.name for n in scope.graph for v in n.outputs),
        )
    ]
    assert len(taken) == len(set(taken))
    assert {"q_2", "w_1", "x_1", "v_1"} <= set(taken)


def test_names_of_a_new_body_are_made_unique(s: Sample):
    def body(op_type: str) -> ir.Attr:
        inner = ir.node(op_type, [s.values["r"]], name="inner")
        inner.outputs[0].name = "e"
        key = "then_branch" if op_type == "Neg" else "else_branch"
        return ir.AttrGraph(key, ir.Graph([], inner.outputs, nodes=[inner], name=key))

    q = Fresh("q")
    bodies = {"then_branch": body("Neg"), "else_branch": body("Abs")}
    node = NewNode("If", (s.values["c"],), (q,), bodies)
    s.apply(s.patch(Edit((s.nodes["out"],), (node,), rewire={s.values["z"]: q})))
    names = [v.name for sc in scopes(s.model) for n in sc.graph for v in n.outputs]
    assert len(names) == len(set(names))
    new = s.model.graph.outputs[1].producer()
    inner = new.attributes["then_branch"].as_graph()[0]
    assert inner.metadata_props[PASS_KEY] == "test"


def test_constants_that_nothing_reads_go_with_the_nodes(s: Sample):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["r"],), (q,))
    patch = s.patch(Edit((s.nodes["add"],), (node,), rewire={s.values["a"]: q}))
    assert [v.name for v in patch.dying_initializers()] == ["w"]
    s.apply(patch)
    assert set(s.model.graph.initializers) == {"d", "i", "k"}


def test_defaults_and_outputs_stay_when_nothing_reads_them(s: Sample):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["a"],), (q,))
    s.apply(s.patch(Edit((s.nodes["out"],), (node,), rewire={s.values["z"]: q})))
    assert {"d", "k"} <= set(s.model.graph.initializers)


def test_a_constant_another_node_reads_stays(s: Sample):
    q = Fresh("q")
    node = NewNode("Mul", (s.values["r"], s.values["w"]), (q,))
    patch = s.patch(Edit((s.nodes["add"],), (node,), rewire={s.values["a"]: q}))
    assert patch.dying_initializers() == ()
    s.apply(patch)
    assert "w" in s.model.graph.initializers


def test_readers_in_branches_follow(s: Sample):
    s.apply(s.patch(Edit((s.nodes["add"],), rewire={s.values["a"]: s.values["r"]})))
    assert s.nodes["inner"].inputs[0] is s.values["r"]
    assert "w" not in s.model.graph.initializers


def test_a_node_with_branches_is_removed_whole(s: Sample):
    q = Fresh("q")
    node = NewNode("Neg", (s.values["r"],), (q,))
    s.apply(s.patch(Edit((s.nodes["if"],), (node,), rewire={s.values["y"]: q})))
    readers = {use.node.name for use in s.values["a"].uses()}
    assert readers == {"split", "out"}
    assert [n.op_type for n in s.model.graph] == ["Relu", "Add", "Split", "Neg", "Sub"]


def test_one_output_of_several_can_be_replaced(s: Sample):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["a"],), (q,))
    s.apply(s.patch(Edit((), (node,), rewire={s.values["t"]: q})))
    assert s.nodes["split"].outputs[0].name == "s"
    assert s.nodes["split"].outputs[1].name == "t_unused"
    to_proto(s.model)


def test_a_constant_can_be_replaced_by_a_computation(s: Sample):
    half, q = Fresh("w16", ir.tensor(np.ones(4, np.float16))), Fresh("w32")
    node = NewNode("Cast", (half,), (q,), {"to": 1})
    s.apply(s.patch(Edit((), (node,), rewire={s.values["w"]: q})))
    assert s.nodes["add"].inputs[1].producer().op_type == "Cast"
    assert set(s.model.graph.initializers) == {"d", "i", "k", "w16"}


def test_an_input_can_be_replaced_for_its_readers(s: Sample):
    fresh = Fresh("fixed", _floats(4, 3, 2, 1))
    s.apply(s.patch(Edit(rewire={s.values["d"]: fresh})))
    assert [v.name for v in s.model.graph.inputs] == ["x", "c", "d"]
    assert s.nodes["out"].inputs[1].name == "fixed"


def test_the_graph_output_names_a_value_that_replaces_two(s: Sample):
    q = Fresh("q")
    node = NewNode("Relu", (s.values["x"],), (q,))
    rewire = {s.values["s"]: q, s.values["z"]: q, s.values["t"]: q}
    s.apply(s.patch(Edit((s.nodes["split"], s.nodes["out"]), (node,), rewire=rewire)))
    assert [v.name for v in s.model.graph.outputs] == ["y", "z", "k"]


def test_an_outer_constant_serves_inner_scopes_in_any_order(s: Sample):
    shared = Fresh("shared", _floats(1, 2, 3, 4))
    edits = {
        s.yes: Edit(rewire={s.values["v"]: shared}),
        s.main: Edit(initializers=(shared,), rewire={s.values["w"]: shared}),
    }
    s.apply(s.patch(edits))
    assert s.nodes["inner"].inputs[1] is s.nodes["add"].inputs[1]
    assert s.model.graph.initializers["shared"].const_value is shared.tensor
    assert not s.yes.graph.initializers


def test_data_is_replaced_in_place(s: Sample):
    new = _floats(9, 8, 7, 6)
    s.apply(s.patch(Edit(replace_data={s.values["w"]: new})), number=3)
    assert s.model.graph.initializers["w"] is s.values["w"]
    assert s.values["w"].const_value is new
    assert s.values["w"].metadata_props[PATCH_KEY] == "3"


def test_metadata_of_model_and_graph_survives(s: Sample):
    s.model.metadata_props["author"] = "me"
    s.model.graph.metadata_props["kind"] = "test"
    s.yes.graph.metadata_props["kind"] = "branch"
    s.apply(s.patch(Edit((s.nodes["add"],), rewire={s.values["a"]: s.values["r"]})))
    proto = to_proto(s.model)
    assert [(p.key, p.value) for p in proto.metadata_props] == [("author", "me")]
    assert [(p.key, p.value) for p in proto.graph.metadata_props] == [("kind", "test")]
    assert s.yes.graph.metadata_props == {"kind": "branch"}


def test_a_function_body_is_edited_with_its_own_opset(s: Sample):
    scope = s.scopes["function my::F"]
    q = Fresh("q")
    node = NewNode("Neg", (s.values["p"],), (q,))
    s.apply(s.patch({scope: Edit((s.nodes["in_f"],), (node,), rewire={s.values["q"]: q})}))
    assert [n.op_type for n in scope.graph] == ["Neg"]
    assert scope.graph.outputs[0].name == "q"


# Staleness --------------------------------------------------------------------------------------


def test_a_patch_about_removed_things_is_stale(s: Sample):
    first = s.patch(Edit((s.nodes["add"],), rewire={s.values["a"]: s.values["r"]}))
    q = Fresh("q")
    other = NewNode("Mul", (s.values["r"], s.values["w"]), (q,))
    stale = [
        first,
        s.patch(Edit((s.nodes["add"], s.nodes["split"]))),
        s.patch(Edit((s.nodes["out"],), (other,), rewire={s.values["z"]: q})),
        s.patch(Edit(rewire={s.values["w"]: s.values["d"]})),
        s.patch(Edit(replace_data={s.values["w"]: _floats(1, 1, 1, 1)})),
    ]
    fresh = s.patch(Edit((s.nodes["split"],)))
    assert not any(patch.stale() for patch in (*stale, fresh))
    s.apply(first)
    assert all(patch.stale() for patch in stale)
    assert not fresh.stale()


def test_a_patch_inside_a_removed_node_is_stale(s: Sample):
    inside = s.patch({s.no: Edit((s.nodes["other"],))})
    constants = s.patch({s.yes: Edit(rewire={s.values["v"]: s.values["w"]})})
    q = Fresh("q")
    node = NewNode("Neg", (s.values["r"],), (q,))
    s.apply(s.patch(Edit((s.nodes["if"],), (node,), rewire={s.values["y"]: q})))
    assert inside.stale()
    assert constants.stale()
