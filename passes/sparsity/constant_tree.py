"""Decode graphs in a model: what computes a tensor from constants by bits or by scattering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_DECODES = frozenset({"BitShift", "BitwiseAnd", "ScatterElements", "ScatterND"})
_MOST_ELEMENTS = 2**27  # of eight bytes: what onnxruntime computes while it loads
_CASTS = frozenset("fiub")  # kinds of numpy's types


@dataclass(frozen=True)
class DecodeTree:
    """A node that makes a tensor of constants, and what lies between.

    Parameters
    ----------
    root
        The node whose output others read.
    nodes
        All nodes of the tree in topological order, the root last.
    leaves
        The constants that it reads.
    """

    root: ir.Node
    nodes: tuple[ir.Node, ...]
    leaves: tuple[ir.Value, ...]

    def evaluate(self, facts: Facts) -> np.ndarray | None:
        """Compute the tensor; None where it is malformed or unreasonably large."""
        known: dict[ir.Value, np.ndarray] = {}
        for leaf in self.leaves:
            array = facts.array(leaf)
            if array is None:
                return None
            known[leaf] = array
        for node in self.nodes:
            inputs = [known[value] for value in node.inputs if value is not None]
            try:
                made = _OPERATORS[node.op_type](node, inputs)
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError):
                return None
            known[node.outputs[0]] = made
        return known[self.root.outputs[0]]

    def removable(self) -> tuple[ir.Node, ...]:
        """Return the nodes that nothing needs once the root's output is there otherwise."""
        gone: list[ir.Node] = []
        for node in reversed(self.nodes):
            output = node.outputs[0]
            read = {use.node for use in output.uses()} - set(gone)
            if node is self.root or not (read or output.is_graph_output()):
                gone.append(node)
        return tuple(reversed(gone))


def decode_trees(scope: Scope, facts: Facts) -> Iterator[DecodeTree]:
    """Yield the decode graphs of a scope: standard operators on constants alone."""
    if not any(node.domain == "" and node.op_type in _DECODES for node in scope.graph):
        return
    constant: dict[ir.Node, None] = {}
    for node in scope.graph:
        known = node.domain == "" and node.op_type in _OPERATORS and len(node.outputs) == 1
        if known and all(
            value is None or _producer(value, scope) in constant or _is_leaf(value, facts)
            for value in node.inputs
        ):
            constant[node] = None
    for node in constant:
        output = node.outputs[0]
        if any(use.node not in constant for use in output.uses()) or output.is_graph_output():
            above = _above(node, constant)
            nodes = tuple(other for other in constant if other in above)
            if any(other.op_type in _DECODES for other in nodes):
                inner = {other.outputs[0] for other in nodes}
                read = dict.fromkeys(v for other in nodes for v in other.inputs if v is not None)
                yield DecodeTree(node, nodes, tuple(v for v in read if v not in inner))


def _is_leaf(value: ir.Value, facts: Facts) -> bool:
    made = value.producer()
    return (made is None or made.op_type == "Constant") and facts.tensor(value) is not None


def _producer(value: ir.Value, scope: Scope) -> ir.Node | None:
    node = value.producer()
    return node if node is not None and node.graph is scope.graph else None


def _above(root: ir.Node, constant: dict[ir.Node, None]) -> set[ir.Node]:
    found, pending = set(), [root]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            made = (value.producer() for value in node.inputs if value is not None)
            pending.extend(other for other in made if other in constant and other is not None)
    return found


# The operators, by numpy: only what decode graphs are made of, and only where all of it is clear.


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _reshape(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    data, shape = inputs
    dims = [int(d) for d in shape]
    if _integer(node, "allowzero", 0) == 0:
        dims = [data.shape[axis] if d == 0 else d for axis, d in enumerate(dims)]
    return data.reshape(dims)


def _cast(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    dtype = np.dtype(ir.DataType(_integer(node, "to", 0)).numpy())
    if not {dtype.kind, inputs[0].dtype.kind} <= _CASTS:
        raise TypeError(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return inputs[0].astype(dtype)


def _shift(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    shift = np.left_shift if node.attributes["direction"].as_string() == "LEFT" else np.right_shift
    return np.asarray(shift(_bounded(inputs[0], inputs[1]), inputs[1]))


def _bounded(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    _check(np.broadcast_shapes(one.shape, other.shape))
    return one


def _check(dims: Sequence[int]) -> None:
    if min(dims, default=0) < 0 or int(np.prod(dims, dtype=np.float64)) > _MOST_ELEMENTS:
        raise ValueError(dims)


def _cumsum(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    data, axis = inputs
    if _integer(node, "exclusive", 0) or _integer(node, "reverse", 0):
        raise ValueError(node.op_type)
    return np.cumsum(data, axis=int(axis.reshape(())), dtype=data.dtype)


def _gather(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    data, indices = inputs
    axis = _integer(node, "axis", 0)
    _check((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    return np.take(data, indices, axis=axis)


def _slice(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    del node
    data, starts, stops = inputs  # with axes or steps it is none of ours
    cuts = tuple(slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return data[cuts]


def _constant_of_shape(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    fill = node.attributes.get("value")
    element = np.zeros(1, np.float32) if fill is None else fill.as_tensor().numpy()
    dims = [int(d) for d in inputs[0]]
    _check(dims)
    return np.full(dims, element.reshape(()))


def _scatter(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    data, indices, updates = inputs
    if data.ndim != 1 or indices.shape != updates.shape or _integer(node, "axis", 0) not in (0, -1):
        raise ValueError(node.op_type)
    if node.attributes.get("reduction") is not None:
        raise ValueError(node.op_type)
    made = data.copy()
    made[indices] = updates
    return made


def _scatter_nd(node: ir.Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    data, indices, updates = inputs
    if node.attributes.get("reduction") is not None or updates.shape != indices.shape[:-1]:
        raise ValueError(node.op_type)
    made = data.copy()
    made[tuple(np.moveaxis(indices, -1, 0))] = updates
    return made


_OPERATORS: dict[str, Callable[[ir.Node, Sequence[np.ndarray]], np.ndarray]] = {
    "Add": lambda _, inputs: np.add(_bounded(*inputs), inputs[1]),
    "BitShift": _shift,
    "BitwiseAnd": lambda _, inputs: np.bitwise_and(_bounded(*inputs), inputs[1]),
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumsum,
    "Gather": _gather,
    "Mul": lambda _, inputs: np.multiply(_bounded(*inputs), inputs[1]),
    "Reshape": _reshape,
    "ScatterElements": _scatter,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Sub": lambda _, inputs: np.subtract(_bounded(*inputs), inputs[1]),
    "Unsqueeze": lambda _, inputs: np.expand_dims(inputs[0], tuple(int(a) for a in inputs[1])),
}
