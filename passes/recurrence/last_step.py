"""The output of the last step, read from the final state instead of from all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.recurrence.removal import with_orphans
from structopt_onnx.passes.recurrence.shape_vectors import permutation, sizes_of, squeezed_axes
from structopt_onnx.passes.recurrence.subgraph import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

# Axes of Y: time, directions, batch, features.
_Y_AXES = (0, 1, 2, 3)
_BATCH_AND_FEATURES = (2, 3)
_VIEWS = {"Transpose", "Squeeze"}


def from_final_state(node: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    """Describe reading Y_h where a Gather takes the step that was computed last.

    With one direction and sequences that are all full, Y_h is the last step of Y, and the first
    one where the direction is reverse.
    """
    view = _view_of_output(node.inputs[0], facts)
    index = facts.array(node.inputs[1])
    if view is None or index is None or index.ndim != 0:
        return None
    cell, axes = view
    attribute = node.attributes.get("axis")
    axis = axes[0 if attribute is None else attribute.as_int()]
    left = tuple(a for a in axes if a != axis)
    if axis != 0 or left != _BATCH_AND_FEATURES or not _is_final(int(index), cell, facts):
        return None
    graph = Subgraph(node.name or node.op_type, facts.opset(scope) or 0)
    result = node.outputs[0]
    if len(cell.outputs) > op.Y_H and cell.outputs[op.Y_H].name:
        state: ir.Value | Fresh = cell.outputs[op.Y_H]
        gone, rewire = with_orphans([node], [state]), {}
    elif cell.graph is not scope.graph:
        return None
    else:
        name = cell.outputs[op.Y].name
        outputs = tuple(Fresh(f"{name}_{k}") for k in range(max(len(cell.outputs), op.Y_H + 1)))
        attributes = dict(cell.attributes.items())
        graph.nodes.append(NewNode(cell.op_type, tuple(cell.inputs), outputs, attributes))
        named = {k: old for k, old in enumerate(cell.outputs) if old.name}
        gone = with_orphans([node, cell], cell.inputs)
        rewire = {old: outputs[k] for k, old in named.items() if not _dies(old, gone)}
        state = outputs[op.Y_H]
    made = graph.squeeze(state, 0, name="last")
    edit = Edit(gone, tuple(graph.nodes), rewire={**rewire, result: made})
    return Patch(f"{result.name} is the final state", node, {scope: edit})


def _view_of_output(value: ir.Value | None, facts: Facts) -> tuple[ir.Node, tuple[int, ...]] | None:
    """Return the node whose Y a value shows, and which axis of Y each of its axes is."""
    node = None if value is None else value.producer()
    if node is None or value is None or node.domain != "":
        return None
    if op.is_recurrent(node):
        plain = not op.is_batch_first(node) and len(op.directions(node)) == 1
        full = op.operand(node, op.LENGTHS) is None
        return (node, _Y_AXES) if plain and full and value.index() == op.Y else None
    view = _view_of_output(node.inputs[0], facts) if node.op_type in _VIEWS else None
    if view is None:
        return None
    cell, axes = view
    if node.op_type == "Transpose":
        return cell, tuple(axes[k] for k in permutation(node, len(axes)))
    taken = squeezed_axes(node, len(axes), facts)
    if taken is None:
        return None
    return cell, tuple(axis for k, axis in enumerate(axes) if k not in taken)


def _is_final(index: int, cell: ir.Node, facts: Facts) -> bool:
    sizes = sizes_of(cell.outputs[op.Y], facts)
    steps = None if sizes is None or sizes[0].free else sizes[0].factor
    if index < 0 and steps is not None:
        index += steps
    last = -1 if steps is None else steps - 1
    return index == (0 if op.directions(cell) == ("reverse",) else last)


def _dies(value: ir.Value, gone: tuple[ir.Node, ...]) -> bool:
    return not value.is_graph_output() and all(use.node in gone for use in value.uses())
