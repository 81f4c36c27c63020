"""Transposes and reshapes of a recurrence's output that can be told shorter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.recurrence.removal import with_orphans
from structopt_onnx.passes.recurrence.shape_vectors import permutation, reshaped, sizes_of
from structopt_onnx.passes.recurrence.subgraph import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.edit import Fresh
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_DIRECTIONS = 1
_Y_RANK = 4
# Views of an output, and how many of them lie between it and what is looked at.
_VIEWS = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity"}
_MOST_VIEWS = 4


def shorter_reshape(node: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    """Describe a Reshape that takes out the axis of directions, or merges it into the features.

    With one direction it is a Squeeze, and a Transpose before it that moved nothing else goes.
    With two, a shape that the graph computes becomes a constant.
    """
    source = node.inputs[0]
    path = _from_output(source)
    if source is None or path is None:
        return None
    output, order = path
    sizes, wanted = sizes_of(source, facts), reshaped(node, facts)
    if sizes is None or wanted is None:
        return None
    graph = _subgraph(node, scope, facts)
    place = order.index(_DIRECTIONS)
    if sizes[place].factor == 1 and not sizes[place].free:
        if wanted != sizes[:place] + sizes[place + 1 :]:
            return None
        moved = [axis for axis in order if axis != _DIRECTIONS]
        if moved == sorted(moved):
            made = graph.squeeze(output, _DIRECTIONS, name="steps")
        else:
            made = graph.squeeze(source, place, name="steps")
        return _patch(node, scope, graph, made, "one direction is squeezed")
    if facts.tensor(op.operand(node, 1)) is not None:
        return None
    if wanted != (*sizes[:2], sizes[2] * sizes[3]) or wanted[2].free:
        return None
    made = graph.reshape(source, (0, 0, wanted[2].factor), name="steps")
    return _patch(node, scope, graph, made, "a computed shape is constant")


def shorter_transpose(node: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    """Describe a Transpose that undoes or goes on with one before it.

    A Reshape that merges the directions into the features may lie between the two.
    """
    source = node.inputs[0]
    before = None if source is None else source.producer()
    if before is None or before.domain != "" or not _near_recurrence(node):
        return None
    if before.op_type == "Transpose":
        return _composed(node, before, scope, facts)
    if before.op_type == "Reshape":
        return _through_reshape(node, before, scope, facts)
    return None


def _composed(node: ir.Node, before: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    first, origin = before.attributes.get("perm"), before.inputs[0]
    second = node.attributes.get("perm")
    if first is None or second is None or origin is None:
        return None
    inner = first.as_ints()
    order = tuple(inner[k] for k in second.as_ints())
    graph = _subgraph(node, scope, facts)
    if order == tuple(range(len(order))):
        if node.outputs[0].is_graph_output():
            return None
        return _patch(node, scope, graph, origin, "two transposes cancel")
    made = graph.add("Transpose", origin, name="turned", perm=order)
    return _patch(node, scope, graph, made, "two transposes are one")


def _through_reshape(node: ir.Node, merge: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    source = merge.inputs[0]
    path, merged = _from_output(source), merge.outputs[0]
    outer = permutation(node, _Y_RANK - 1)
    if source is None or path is None or outer != (1, 0, 2) or len(merged.uses()) > 1:
        return None
    output, order = path
    sizes, wanted = sizes_of(source, facts), reshaped(merge, facts)
    if merged.is_graph_output() or sizes is None or order == tuple(range(_Y_RANK)):
        return None
    if wanted is None or wanted != (*sizes[:2], sizes[2] * sizes[3]) or wanted[2].free:
        return None
    graph = _subgraph(node, scope, facts)
    turned: ir.Value | Fresh = output
    inner = (order[1], order[0], order[2], order[3])
    if inner != tuple(range(_Y_RANK)):
        turned = graph.add("Transpose", output, name="turned", perm=inner)
    made = graph.reshape(turned, (0, 0, wanted[2].factor), name="merged")
    return _patch(node, scope, graph, made, "two transposes are one")


def _from_output(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Return the output Y that a value is, or is a Transpose of, with the order of its axes."""
    node = None if value is None else value.producer()
    if node is None or value is None:
        return None
    if node.domain == "" and node.op_type == "Transpose" and node.inputs[0] is not None:
        origin = _from_output(node.inputs[0])
        if origin is None or origin[1] != tuple(range(_Y_RANK)):
            return None
        return origin[0], permutation(node, _Y_RANK)
    whole = op.is_recurrent(node) and not op.is_batch_first(node) and value.index() == op.Y
    return (value, tuple(range(_Y_RANK))) if whole else None


def _near_recurrence(node: ir.Node) -> bool:
    """Whether a node looks at a recurrence's output, or a recurrence reads what it makes."""
    if any(op.is_recurrent(use.node) for use in node.outputs[0].uses()):
        return True
    value = node.inputs[0]
    for _ in range(_MOST_VIEWS):
        maker = None if value is None else value.producer()
        if maker is None:
            return False
        if op.is_recurrent(maker):
            return True
        if maker.domain != "" or maker.op_type not in _VIEWS:
            return False
        value = maker.inputs[0]
    return False


def _subgraph(node: ir.Node, scope: Scope, facts: Facts) -> Subgraph:
    return Subgraph(node.name or node.op_type, facts.opset(scope) or 0)


def _patch(
    node: ir.Node, scope: Scope, graph: Subgraph, made: ir.Value | Fresh, what: str
) -> Patch:
    result = node.outputs[0]
    kept = [operand for new in graph.nodes for operand in new.inputs]
    gone = with_orphans([node], [*kept, made])
    edit = Edit(gone, tuple(graph.nodes), rewire={result: made})
    return Patch(f"{result.name}: {what}", node, {scope: edit})
