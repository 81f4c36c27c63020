"""Errors of quantized and float16 models in quanta: the steps in which their outputs come."""

from __future__ import annotations

import math
from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.errors import UsageError
from structopt_onnx.validation.tolerances import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.validation.metrics import OutputMetrics

# What lies between the last quantization and the output without making new values.
_CARRIES = frozenset(
    {"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_FRACTION_BITS, _LEAST_NORMAL = 10, 2.0**-14  # of float16 (IEEE 754-2008, 3.6)
_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass(frozen=True)
class Quantum:
    """The step in which an output's values come.

    Attributes
    ----------
    source
        Where it is from: an operator, or "float16".
    step
        The scale of a DequantizeLinear, its largest where there is one per channel; 1 for
        integers; None for float16, whose unit in the last place is taken at the largest value
        of the output.
    """

    source: str
    step: float | None

    def __str__(self) -> str:
        """Name the step and where it is from."""
        return self.source if self.step is None else f"{self.step:.3g} ({self.source})"

    def of(self, metrics: OutputMetrics) -> float:
        """Return the largest difference of an output in quanta; 0 where nothing differs."""
        if not metrics.max_abs:
            return 0.0
        step = self.step
        if step is None:
            largest = max(metrics.largest or 0.0, _LEAST_NORMAL)
            step = math.ldexp(1.0, math.frexp(largest)[1] - 1 - _FRACTION_BITS)
        return metrics.max_abs / step if step > 0 else math.inf


@dataclass(frozen=True)
class Quanta:
    """How many quanta an output may be off.

    Attributes
    ----------
    most
        Largest number of quanta.
    by_output
        The quantum of every output that has one.
    """

    most: float
    by_output: Mapping[str, Quantum]

    @classmethod
    def of(cls, most: float, *models: Mapping[str, Quantum]) -> Quanta:
        """Take the quantum of each output from the first of the models that has one for it.

        Raises
        ------
        UsageError
            `most` is negative or not finite, or no output has a quantum.
        """
        if not (math.isfinite(most) and most >= 0):
            raise UsageError(f"quanta is {most}; give a finite number, 0 or more")
        found = dict(ChainMap(*map(dict, models)))
        if not found:
            raise UsageError(
                "no output of either model has a quantum: none comes out of a QuantizeLinear or "
                "DequantizeLinear, and neither model computes in float16"
            )
        return cls(most, found)


def output_quanta(model: ir.Model) -> dict[str, Quantum]:
    """Tell in which steps the outputs of a model come, as far as its graph says."""
    narrow = arithmetic_dtype(model) == "float16"
    found = {}
    for output in model.graph.outputs:
        quantum = _quantum(output)
        if quantum is None and output.dtype in _FLOATS and narrow:
            quantum = Quantum("float16", None)
        if quantum is not None and output.name is not None:
            found[output.name] = quantum
    return found


def _quantum(value: ir.Value) -> Quantum | None:
    node = value.producer()
    while node is not None and node.domain == "" and node.op_type in _CARRIES:
        value = node.inputs[0] or value
        node = value.producer()
    if node is None:
        return None
    if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
        return Quantum(node.op_type, 1.0)
    if node.op_type == "DequantizeLinear":
        scale = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] else None
        if scale is not None and scale.size:
            return Quantum(node.op_type, float(np.max(np.abs(scale.numpy()))))
    return None
