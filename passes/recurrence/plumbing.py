"""New nodes around a recurrence, written for the operator set in force."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Fresh, NewNode, Operand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_AXES_ARE_INPUTS = 13  # opset in which Squeeze and Unsqueeze take their axes as an input
_SPLIT_COUNTS = 18  # opset in which Split wants the number of outputs


@dataclass
class Plumbing:
    """Collects new nodes in topological order.

    Parameters
    ----------
    opset
        Version of the default operator domain.
    """

    opset: int
    nodes: list[NewNode] = field(default_factory=list)

    def node(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        wish: str,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Fresh:
        """Add a node with one output."""
        (made,) = self.nodes_outputs(op_type, inputs, (wish,), attributes)
        return made

    def nodes_outputs(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        wishes: Sequence[str],
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> tuple[Fresh, ...]:
        """Add a node with outputs of these names; an empty name leaves an output out."""
        outputs = tuple(Fresh(wish) for wish in wishes)
        self.nodes.append(NewNode(op_type, tuple(inputs), outputs, attributes or {}))
        return outputs

    @staticmethod
    def constant(array: np.ndarray, wish: str) -> Fresh:
        """Return a new constant."""
        return Fresh(wish, ir.tensor(np.array(array)))

    def integers(self, numbers: int | Sequence[int], wish: str) -> Fresh:
        """Return a new constant of 64-bit integers."""
        return self.constant(np.asarray(numbers, np.int64), wish)

    def _with_axes(self, op_type: str, value: Operand, axes: Sequence[int], wish: str) -> Fresh:
        if self.opset < _AXES_ARE_INPUTS:
            return self.node(op_type, (value,), wish, {"axes": tuple(axes)})
        return self.node(op_type, (value, self.integers(axes, f"{wish}_axes")), wish)

    def unsqueeze(self, value: Operand, axes: Sequence[int], wish: str) -> Fresh:
        """Insert dimensions of size 1."""
        return self._with_axes("Unsqueeze", value, axes, wish)

    def squeeze(self, value: Operand, axes: Sequence[int], wish: str) -> Fresh:
        """Drop dimensions of size 1."""
        return self._with_axes("Squeeze", value, axes, wish)

    def reshape(self, value: Operand, shape: Sequence[int], wish: str) -> Fresh:
        """Give another shape; 0 keeps a dimension, -1 stands for the rest."""
        return self.node("Reshape", (value, self.integers(shape, f"{wish}_shape")), wish)

    def transpose(self, value: Operand, perm: Sequence[int], wish: str) -> Operand:
        """Permute the dimensions, where that changes anything."""
        if tuple(perm) == tuple(range(len(perm))):
            return value
        return self.node("Transpose", (value,), wish, {"perm": tuple(perm)})

    def concat(self, values: Sequence[Operand], axis: int, wish: str) -> Operand:
        """Concatenate, where there is more than one."""
        if len(values) == 1:
            return values[0]
        return self.node("Concat", values, wish, {"axis": axis})

    def take(self, value: Operand, indices: Sequence[int], axis: int, wish: str) -> Fresh:
        """Gather entries along an axis, in this order."""
        made = self.integers(indices, f"{wish}_indices")
        return self.node("Gather", (value, made), wish, {"axis": axis})

    def split(self, value: Operand, wishes: Sequence[str], axis: int) -> tuple[Fresh, ...]:
        """Split into equal parts."""
        attributes: dict[str, AttributeValue] = {"axis": axis}
        if self.opset >= _SPLIT_COUNTS:
            attributes["num_outputs"] = len(wishes)
        return self.nodes_outputs("Split", (value,), wishes, attributes)
