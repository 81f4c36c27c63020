"""Two directions over one input, read together, as one bidirectional operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.chains import signature
from structopt_onnx.passes.recurrence.plumbing import Plumbing
from structopt_onnx.passes.recurrence.removal import with_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.sizes import Sizes

_OPERATORS = {"RNN", "GRU", "LSTM"}
_LISTS = ("activations", "activation_alpha", "activation_beta")
_WEIGHTS = (1, 2, 3, 7)  # W, R, B, P
_STATES = (5, 6)  # initial_h, initial_c
_STACK_RANK = 3


@dataclass(frozen=True)
class Joined:
    """A concatenation of what two directions make.

    Parameters
    ----------
    node
        The Concat.
    forward, backward
        The operators.
    rows
        Whether it joins rows of all steps, [steps * batch, hidden]; otherwise whole stacks,
        [steps, batch, hidden].
    """

    node: ir.Node
    forward: ir.Node
    backward: ir.Node
    rows: bool


def pairs(scope: Scope, facts: Facts, sizes: Sizes) -> Iterator[Patch]:
    """Yield a patch for each concatenation of two directions that nothing else reads."""
    for node in scope.graph:
        if node.domain == "" and node.op_type == "Concat" and len(node.inputs) == 2:  # noqa: PLR2004 - directions
            found = _joined(node, sizes)
            if found is not None and _is_pair(found, facts):
                yield _merged(found, scope, facts, sizes)


def _joined(node: ir.Node, sizes: Sizes) -> Joined | None:
    ends = [_end(value, sizes) for value in node.inputs]
    dims = sizes.dims(node.outputs[0])
    if None in ends or dims is None:
        return None
    (forward, rows), (backward, also) = (end for end in ends if end is not None)
    last = node.attributes["axis"].as_int() % len(dims) == len(dims) - 1
    if rows is not also or not last or len(dims) != _STACK_RANK - rows:
        return None
    return Joined(node, forward, backward, rows)


def _end(value: ir.Value | None, sizes: Sizes) -> tuple[ir.Node, bool] | None:
    """Return the operator whose stack a value is, and whether it is flattened to rows."""
    node = value.producer() if value is not None else None
    rows = node is not None and node.op_type == "Reshape"
    if node is not None and rows:
        before, after = sizes.dims(node.inputs[0]), sizes.dims(value)
        if before is None or after is None or len(before) != _STACK_RANK or len(after) != 2:  # noqa: PLR2004 - rows
            return None
        if before[2] != after[1] or not isinstance(after[1], int):
            return None
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "Squeeze" or node.inputs[0] is None:
        return None
    operator = node.inputs[0].producer()
    axes = sizes.contents(node.inputs[1]) if len(node.inputs) > 1 else None
    if "axes" in node.attributes:
        axes = tuple(node.attributes["axes"].as_ints())
    if operator is None or operator.op_type not in _OPERATORS or operator.domain != "":
        return None
    return (operator, rows) if axes == (1,) and node.inputs[0].index() == 0 else None


def _is_pair(found: Joined, facts: Facts) -> bool:
    one, other = found.forward, found.backward
    if one is other or one.op_type != other.op_type or len(one.outputs) != len(other.outputs):
        return False
    if (_direction(one), _direction(other)) != ("forward", "reverse"):
        return False
    if "layout" in one.attributes and one.attributes["layout"].as_int():
        return False
    if any(_plain(one, n) != _plain(other, n) for n in {*one.attributes, *other.attributes}):
        return False
    if not all(_only_read_by(n, found) for n in (one, other)):
        return False
    return all(_agree(index, one, other, facts) for index in range(8))


def _agree(index: int, one: ir.Node, other: ir.Node, facts: Facts) -> bool:
    """Whether an input of two directions is shared, or can be put together."""
    a, b = _input(one, index), _input(other, index)
    if index in _WEIGHTS and a is not None and b is not None:
        return facts.tensor(a) is not None and facts.tensor(b) is not None
    if index in (*_WEIGHTS, *_STATES):
        return (a is None) == (b is None)
    return _is_same(a, b)


def _direction(node: ir.Node) -> str:
    return node.attributes["direction"].as_string() if "direction" in node.attributes else "forward"


def _plain(node: ir.Node, name: str) -> object:
    if name == "direction":
        return None
    return node.attributes[name].value if name in node.attributes else None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _only_read_by(node: ir.Node, found: Joined) -> bool:
    """Whether nothing but the concatenation comes after an operator."""
    waiting = [*node.outputs]
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            return False
        for use in value.uses():
            if use.node is not found.node:
                if use.node.op_type not in {"Squeeze", "Reshape"}:
                    return False
                waiting += use.node.outputs
    return True


def _is_same(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether two values are made alike from the same ones."""
    if one is other:
        return True
    a = one.producer() if one is not None else None
    b = other.producer() if other is not None else None
    if a is None or b is None or signature(a) is None or signature(a) != signature(b):
        return _same_data(one, other)
    if one is None or other is None or one.index() != other.index() or a.op_type not in _MOVES:
        return False
    return all(_is_same(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))


def _same_data(one: ir.Value | None, other: ir.Value | None) -> bool:
    tensors = [v.const_value for v in (one, other) if v is not None and v.is_initializer()]
    if len(tensors) != 2 or any(t is None for t in tensors):  # noqa: PLR2004 - one each
        return False
    first, second = (t.numpy() for t in tensors if t is not None)
    return first.dtype == second.dtype and np.array_equal(first, second)


_MOVES = {"Transpose", "Gather", "Concat", "Reshape", "Squeeze", "Unsqueeze"}


def _merged(found: Joined, scope: Scope, facts: Facts, sizes: Sizes) -> Patch:
    one, other = found.forward, found.backward
    plumbing = Plumbing(sizes.opset)
    inputs: list[Operand] = []
    for index in range(max(len(one.inputs), len(other.inputs))):
        a, b = _input(one, index), _input(other, index)
        if index in _WEIGHTS and a is not None:
            both = [facts.array(a), facts.array(b)]
            joined = np.concatenate([array for array in both if array is not None])
            inputs.append(plumbing.constant(joined, a.name or "weight"))
        elif index in _STATES and a is not None:
            inputs.append(plumbing.concat((a, b), 0, f"{a.name}_both"))
        else:
            inputs.append(a)
    attributes: dict[str, AttributeValue] = dict(one.attributes)
    attributes["direction"] = "bidirectional"
    for name in _LISTS:
        if name in one.attributes:
            value = one.attributes[name].value
            attributes[name] = ir.Attr(name, one.attributes[name].type, (*value, *value))
    name = found.node.outputs[0].name or "y"
    made = plumbing.nodes_outputs(one.op_type, inputs, (f"{name}_both",), attributes)
    width = (sizes.dims(found.node.outputs[0]) or (0,))[-1]
    turned = plumbing.transpose(made[0], (0, 2, 1, 3), f"{name}_by_step")
    features = width if isinstance(width, int) else -1
    shape = (-1, features) if found.rows else (0, 0, features)
    joined_up = plumbing.reshape(turned, shape, name)
    edit = Edit((), tuple(plumbing.nodes), rewire={found.node.outputs[0]: joined_up})
    removed = with_orphans((found.node,), edit.operands(), edit.rewire)
    title = f"{one.op_type} forward and {other.op_type} backward become one"
    return Patch(title, one, {scope: Edit(removed, edit.add, rewire=edit.rewire)})
