"""The nodes that make a dense tensor of a bitmask or delta encoding, in standard operators.

All shapes are static and all inputs constant, so that onnxruntime computes the tensor once, while
it loads; operators as of opset 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Fresh, NewNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.rewriting.encodings import Layout, Stored

OPSET = 11
"""The first opset with BitShift, CumSum and ScatterElements."""

OPERATORS: Mapping[Layout, frozenset[str]] = {
    "initializer": frozenset(),
    "bitmask": frozenset({"BitShift", "Cast", "CumSum", "Gather", "Mul", "Reshape", "Slice"}),
    "delta": frozenset({"Cast", "ConstantOfShape", "CumSum", "Reshape", "ScatterElements"}),
}
"""What a decode graph is made of, without what half and palette values add (Cast, Gather)."""


class Decoder:
    """Collects the nodes of one decode graph.

    Parameters
    ----------
    name
        Of the tensor; the new values are named after it.
    shape, dtype
        Of the tensor.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: ir.DataType) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.size = int(np.prod(shape, dtype=np.int64))
        self.nodes: list[NewNode] = []

    def decode(self, layout: Layout, arrays: Stored) -> Fresh:
        """Add the nodes of a layout; return the dense tensor, which is named as it was."""
        values = self._constant("values", arrays.values)
        if arrays.table is not None:
            codes = self._node("Cast", "codes", values, to=ir.DataType.INT32.value)
            values = self._node("Gather", "nonzeros", self._constant("table", arrays.table), codes)
        elif arrays.values.dtype == np.float16 and self.dtype is ir.DataType.FLOAT:
            values = self._node("Cast", "nonzeros", values, to=self.dtype.value)
        index = self._constant("index", arrays.index)
        spread = self._bitmask if layout == "bitmask" else self._delta
        flat = spread(index, arrays.index.size, values)
        dense = Fresh(self.name)
        shape = self._constant("shape", np.array(self.shape, np.int64))
        self.nodes.append(NewNode("Reshape", (flat, shape), (dense,)))
        return dense

    def _bitmask(self, index: Fresh, count: int, values: Fresh) -> Fresh:
        """Let each element read the value that is its own, or the zero at the start."""
        column = self._constant("column", np.array([count, 1], np.int64))
        shifts = self._constant("shifts", np.arange(8, dtype=np.uint8))
        last = self._constant("last", np.array(7, np.uint8))
        bytes_ = self._node("Reshape", "bytes", index, column)
        high = self._node("BitShift", "high", bytes_, shifts, direction="LEFT")
        bits = self._node("BitShift", "bits", high, last, direction="RIGHT")
        row = self._constant("row", np.array([8 * count], np.int64))
        mask = self._node("Cast", "mask", self._node("Reshape", "line", bits, row), to=6)
        number = self._node("CumSum", "number", mask, self._axis())
        place = self._node("Mul", "place", number, mask)
        if self.size % 8:
            ends = (np.array([0], np.int64), np.array([self.size], np.int64))
            start, stop = (self._constant("end", end) for end in ends)
            place = self._node("Slice", "places", place, start, stop)
        return self._node("Gather", "flat", values, place)

    def _delta(self, index: Fresh, count: int, values: Fresh) -> Fresh:
        """Put each value where the steps up to it lead."""
        del count
        steps = self._node("Cast", "steps", index, to=ir.DataType.INT64.value)
        place = self._node("CumSum", "place", steps, self._axis())
        row = self._constant("row", np.array([self.size], np.int64))
        zero = ir.Tensor(np.zeros(1, self.dtype.numpy()), dtype=self.dtype)
        zeros = self._node("ConstantOfShape", "zeros", row, value=ir.AttrTensor("value", zero))
        return self._node("ScatterElements", "flat", zeros, place, values, axis=0)

    def _axis(self) -> Fresh:
        return self._constant("axis", np.array(0, np.int32))

    def _constant(self, what: str, array: np.ndarray) -> Fresh:
        return Fresh(f"{self.name}.{what}", ir.tensor(array))

    def _node(self, op_type: str, what: str, *inputs: Fresh, **attributes: AttributeValue) -> Fresh:
        output = Fresh(f"{self.name}.{what}")
        self.nodes.append(NewNode(op_type, inputs, (output,), attributes))
        return output
