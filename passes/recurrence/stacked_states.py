"""One layer's state, taken out of the states of all layers put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.recurrence.removal import with_orphans
from structopt_onnx.passes.recurrence.subgraph import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.edit import Fresh
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_STATE_RANK = 3


def from_its_layer(node: ir.Node, scope: Scope, facts: Facts) -> Patch | None:
    """Describe reading one state where a Gather takes it from a Concat of final states."""
    stack = node.inputs[0]
    joined = None if stack is None else stack.producer()
    index = facts.array(node.inputs[1])
    if joined is None or index is None or index.size != 1 or stack is None:
        return None
    if stack.is_graph_output() or not _joins_states(joined) or _axis(node, 0) != 0:
        return None
    place = int(index.reshape(-1)[0])
    sizes = [_directions(part) for part in joined.inputs]
    place += sum(sizes) if place < 0 else 0
    for part, size in zip(joined.inputs, sizes, strict=True):
        if 0 <= place < size:
            return _patch(node, scope, facts, part, place if size > 1 else None)
        place -= size
    return None


def _patch(
    node: ir.Node, scope: Scope, facts: Facts, part: ir.Value | None, place: int | None
) -> Patch | None:
    """Take a place out of a state; the state itself where `place` is None."""
    result = node.outputs[0]
    graph = Subgraph(node.name or node.op_type, facts.opset(scope) or 0)
    indices = facts.array(node.inputs[1])
    scalar = indices is not None and indices.ndim == 0
    made: ir.Value | Fresh | None
    if place is not None:
        chosen = graph.integers(place if scalar else (place,))
        made = graph.add("Gather", part, chosen, name="state", axis=0)
    elif scalar:
        made = graph.squeeze(part, 0, name="state")
    else:
        made = part
    if made is None or (made is part and result.is_graph_output()):
        return None
    gone = with_orphans([node], [part])
    edit = Edit(gone, tuple(graph.nodes), rewire={result: made})
    return Patch(f"{result.name} is a state of one layer", node, {scope: edit})


def _joins_states(node: ir.Node) -> bool:
    return (
        node.domain == ""
        and node.op_type == "Concat"
        and _axis(node, None) in {0, -_STATE_RANK}
        and all(_is_state(part) for part in node.inputs)
    )


def _is_state(value: ir.Value | None) -> bool:
    maker = None if value is None else value.producer()
    return (
        maker is not None
        and value is not None
        and op.is_recurrent(maker)
        and not op.is_batch_first(maker)
        and value.index() in {op.Y_H, op.Y_C}
    )


def _directions(value: ir.Value | None) -> int:
    maker = None if value is None else value.producer()
    return 0 if maker is None else len(op.directions(maker))


def _axis(node: ir.Node, default: int | None) -> int | None:
    axis = node.attributes.get("axis")
    return default if axis is None else axis.as_int()
