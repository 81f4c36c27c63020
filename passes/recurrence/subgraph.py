"""New nodes for a patch, put down one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Fresh, NewNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.edit import AttributeValue, Operand

# From this opset on a Split without sizes says how many parts it makes.
_SPLIT_COUNTS = 18
# From this opset on the axes of Squeeze are an input.
_AXES_ARE_INPUTS = 13


class Subgraph:
    """Collects the nodes and constants of one edit.

    Parameters
    ----------
    prefix
        Goes before the names of everything new.
    opset
        Version of the default domain.
    dtype
        Of the constants, but for whole numbers.
    """

    def __init__(self, prefix: str, opset: int, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.nodes: list[NewNode] = []
        self._prefix = prefix
        self._dtype = dtype
        self._opset = opset
        self._shared: dict[tuple[str, float | tuple[int, ...]], Fresh] = {}

    def add(self, op_type: str, *inputs: Operand, name: str, **attributes: AttributeValue) -> Fresh:
        """Add a node with one output and return that."""
        output = Fresh(f"{self._prefix}/{name}")
        self.nodes.append(NewNode(op_type, inputs, (output,), attributes))
        return output

    def split(self, value: Operand, parts: int, *, axis: int, name: str) -> tuple[Operand, ...]:
        """Cut a value into equal parts; one part is the value itself."""
        if parts == 1:
            return (value,)
        outputs = tuple(Fresh(f"{self._prefix}/{name}_{index}") for index in range(parts))
        attributes = {"axis": axis}
        if self._opset >= _SPLIT_COUNTS:
            attributes["num_outputs"] = parts
        self.nodes.append(NewNode("Split", (value,), outputs, attributes))
        return outputs

    def join(self, values: Sequence[Operand], *, axis: int, name: str) -> Operand:
        """Put values one after the other; a single one is returned as it is."""
        if len(values) == 1:
            return values[0]
        return self.add("Concat", *values, name=name, axis=axis)

    def reshape(self, value: Operand, dims: tuple[int, ...], *, name: str) -> Fresh:
        """Reshape a value; -1 is what is left over, 0 the dimension that stood there."""
        return self.add("Reshape", value, self.integers(dims), name=name)

    def squeeze(self, value: Operand, axis: int, *, name: str) -> Fresh:
        """Take out an axis of size 1."""
        if self._opset < _AXES_ARE_INPUTS:
            return self.add("Squeeze", value, name=name, axes=(axis,))
        return self.add("Squeeze", value, self.integers((axis,)), name=name)

    def constant(self, array: np.ndarray, name: str) -> Fresh:
        """Make a constant of the edit's type."""
        data = np.ascontiguousarray(array, self._dtype.numpy())
        return Fresh(f"{self._prefix}/{name}", ir.tensor(data))

    def scalar(self, value: float) -> Fresh:
        """Return the constant of a number, the same one each time."""
        key = ("scalar", value)
        if key not in self._shared:
            self._shared[key] = self.constant(np.asarray(value), "scalar")
        return self._shared[key]

    def integers(self, values: int | tuple[int, ...]) -> Fresh:
        """Return the constant of whole numbers, int64, the same one each time."""
        key = ("integers", values)
        if key not in self._shared:
            tensor = ir.tensor(np.asarray(values, np.int64))
            self._shared[key] = Fresh(f"{self._prefix}/integers", tensor)
        return self._shared[key]
