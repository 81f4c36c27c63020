from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.model.validity import interface, problems, restore_interface

_HEAD = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>'
_SOUND = """
g (float[N] x, float[N] d, bool c) => (float[N] y) <float[1] d = {1}, float[1] w = {1}> {
  a = Relu(x)
  p, m = Dropout(a)
  y = If (c) <then_branch = yes () => (float[N] t) <float[1] v = {1}> { t = Add(a, v) },
              else_branch = no () => (float[N] t2) { t2 = Add(p, w) }>
}
<domain: "my", opset_import: ["" : 17]>
F (a) => (b) { b = Relu(a) }
"""


def _model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(_HEAD + text))


def test_a_sound_model_has_no_problems():
    assert problems(_model(_SOUND)) == []


def _unsorted(model: ir.Model) -> None:
    nodes = list(model.graph)
    model.graph.remove(nodes[0])
    model.graph.append(nodes[0])


def _unnamed(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = None


def _twice(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = "p"


def _twice_inside(model: ir.Model) -> None:
    branch = model.graph[2].attributes["then_branch"].as_graph()
    branch[0].outputs[0].name = "a"


def _gone(model: ir.Model) -> None:
    model.graph.remove(model.graph[2])


def _gone_initializer(model: ir.Model) -> None:
    del model.graph.initializers["w"]


def _in_function(model: ir.Model) -> None:
    function = next(iter(model.functions.values()))
    function.graph[0].outputs[0].name = "a"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_unsorted, "reads 'a' before it is made"),
        (_unnamed, "has no name"),
        (_twice, "'p' is defined twice"),
        (_twice_inside, "'a' is defined twice"),
        (_gone, "graph output 'y' is made by no node"),
        (_gone_initializer, "reads 'w' before it is made"),
        (_in_function, "'a' is defined twice"),
    ],
)
def test_problems_are_found(damage, expected: str):
    model = _model(_SOUND)
    damage(model)
    assert any(expected in problem for problem in problems(model)), problems(model)


def test_interface_is_names_types_and_shapes_in_order():
    assert interface(_model(_SOUND)) == (
        ("x", "FLOAT", "[N]"),
        ("d", "FLOAT", "[N]"),
        ("c", "BOOL", "[]"),
        ("y", "FLOAT", "[N]"),
    )


def test_declared_types_and_shapes_come_back():
    original, edited = _model(_SOUND), _model(_SOUND)
    edited.graph.outputs[0].shape = ir.Shape([3])
    edited.graph.inputs[0].type = None
    assert interface(edited) != interface(original)
    restore_interface(edited, original)
    assert interface(edited) == interface(original)


def test_another_output_is_not_made_to_look_right():
    original, edited = _model(_SOUND), _model(_SOUND)
    edited.graph.outputs[0].name = "z"
    restore_interface(edited, original)
    assert interface(edited) != interface(original)
