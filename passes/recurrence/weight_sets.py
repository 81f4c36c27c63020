"""The weights of recurrent nodes, taken together: W, R, and B and P where a node has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Vector = npt.NDArray[np.float64]
Key = tuple[object, ...]

_POSITIONS = (op.W, op.R, op.B, op.PEEPHOLES)
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
REFUSALS = {
    "weight-not-free": "a weight can be overridden, is a graph output, or is read elsewhere too",
}


@dataclass(frozen=True, eq=False)
class WeightSet:
    """What one layer computes with.

    Parameters
    ----------
    node
        The first node that reads it.
    values
        W [D, G H, I], R [D, G H, H], and B [D, 2 G H] and P [D, 3 H] where there are any.
    """

    node: ir.Node
    values: tuple[ir.Value, ...]

    @property
    def name(self) -> str:
        """Name of W."""
        return self.values[0].name or ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all weights."""
        return tuple(value.name or "" for value in self.values)

    @property
    def directions(self) -> int:
        """How many directions the weights are for."""
        return int(_tensor(self.values[0]).shape.numpy()[0])

    @property
    def parameters(self) -> int:
        """Elements of all weights."""
        return sum(_tensor(value).size for value in self.values)

    @property
    def dtype(self) -> ir.DataType:
        """Type of the weights."""
        return _tensor(self.values[0]).dtype

    def arrays(self) -> list[Vector]:
        """Return the weights in float64."""
        return [np.asarray(_tensor(value).numpy(), np.float64) for value in self.values]

    def vector(self) -> Vector:
        """Return all weights, direction by direction, [D, parameters / D]."""
        parts = [array.reshape(self.directions, -1) for array in self.arrays()]
        return np.concatenate(parts, axis=1)


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = value.const_value
    if tensor is None:  # found as a constant
        raise ValueError(value.name)
    return tensor


def find_sets(scope: Scope, facts: Facts) -> Iterator[tuple[Key, WeightSet | Refusal]]:
    """Yield each set of constant weights of the main graph once, with what alike ones share.

    The key holds the operator, which weights there are, their shapes and their type; sets of
    equal keys can take each other's place. A set that must stay as it is comes as a refusal.
    """
    sets: dict[tuple[ir.Value, ...], tuple[Key, WeightSet]] = {}
    for node in scope.graph if scope.is_main else ():
        found = _read(node)
        if found is not None:
            sets.setdefault(found[1].values, found)
    owners = Counter(value for values in sets for value in values)
    for values, (key, held) in sets.items():
        indices = [index for index in _POSITIONS if op.operand(held.node, index) is not None]
        bound = next(
            (
                value
                for value, index in zip(values, indices, strict=True)
                if owners[value] > 1 or not _is_free(value, index, facts)
            ),
            None,
        )
        if bound is None:
            yield key, held
        else:
            yield key, Refusal("weight-not-free", held.node.op_type, bound.name or "")


def _read(node: ir.Node) -> tuple[Key, WeightSet] | None:
    """Return a recurrent node's weights, where all are initializers, and their key."""
    if not op.is_recurrent(node):
        return None
    held = {index: value for index in _POSITIONS if (value := op.operand(node, index)) is not None}
    tensors = [value.const_value for value in held.values() if value.is_initializer()]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(held) or known[0].dtype not in _DTYPES:
        return None
    shapes = tuple(tuple(tensor.shape.numpy()) for tensor in known)
    key = (node.op_type, tuple(held), shapes, known[0].dtype)
    return key, WeightSet(node, tuple(held.values()))


def _is_free(value: ir.Value, index: int, facts: Facts) -> bool:
    return (
        facts.tensor(value) is not None
        and not value.is_graph_output()
        and value.graph is facts.model.graph
        and all(
            use.idx == index and op.is_recurrent(use.node) and use.node.graph is value.graph
            for use in value.uses()
        )
    )


def set_of(names: tuple[str, ...], scope: Scope, facts: Facts) -> WeightSet | Refusal:
    """Find a set again by its names; code ``superseded`` when it is gone."""
    for _, found in find_sets(scope, facts):
        if isinstance(found, WeightSet) and found.names == names:
            return found
    return Refusal("superseded", "an earlier rewrite took it", names[0])
