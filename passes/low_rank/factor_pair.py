"""Two factors in a row and the activation behind them: what a refit may fit together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.piecewise import PiecewiseLinear, clip, leaky_relu
from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.statistic import PatchStatistic
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FactorPair:
    """``y = A (B x + c) + b``, where nothing else reads what is between.

    Parameters
    ----------
    first, last
        The products with B and c, and with A and b.
    """

    first: LastFactor
    last: LastFactor

    def product(self) -> FloatArray:
        """Return A B, float64 [m, n]."""
        return self.last.factor() @ self.first.factor()

    @property
    def offset(self) -> FloatArray:
        """What is added to ``A B x``: ``A c + b``, float64 [m]."""
        return self.last.factor() @ self.first.bias + self.last.bias

    def written(
        self, scope: Scope, upper: FloatArray, lower: FloatArray, offset: FloatArray
    ) -> Patch:
        """Describe the edit that writes a new A, B, and b where it may change.

        Parameters
        ----------
        scope
            Where they lie.
        upper, lower, offset
            A [m, r], B [r, n] and what is to be added to ``A B x``.
        """
        bias = offset - upper @ self.first.bias
        parts = (
            self.first.written(scope, lower, self.first.bias),
            self.last.written(scope, upper, bias),
        )
        data = {k: v for part in parts for k, v in part.edits[scope].replace_data.items()}
        title = f"{self.first.weight.name} and {self.last.weight.name}: fitted to their inputs"
        return Patch(title, self.last.node, {scope: Edit(replace_data=data)})


def pair_with(last: LastFactor, scope: Scope, facts: Facts) -> FactorPair | None:
    """Find the factor before a last one that reads one position at a time."""
    if isinstance(last.read, PatchStatistic) and not _pointwise(last.read):
        return None
    between = last.node.inputs[0] if _reads_first(last) else last.node.inputs[1]
    node = None if between is None else between.producer()
    if between is None or node is None or len(between.uses()) != 1 or between.is_graph_output():
        return None
    for value in node.inputs:
        if value is None or value.name not in scope.graph.initializers:
            continue
        first = last_factor(value.name or "", scope, facts)
        if isinstance(first, LastFactor) and first.made.values == last.read.values:
            # The bias between stays: b can make up for it, or c is nothing.
            fits = first.factor().shape[0] == last.factor().shape[1]
            if fits and (last.addend is not None or not first.bias.any()):
                return FactorPair(first, last)
    return None


def activation_behind(value: ir.Value, facts: Facts) -> PiecewiseLinear | None:
    """Return the activation that is all that reads a value, where it is straight in pieces."""
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    (use,) = value.uses()
    node = use.node
    if node.domain != "" or use.idx != 0:
        return None
    if node.op_type == "Relu":
        return leaky_relu()
    if node.op_type == "LeakyRelu":
        return leaky_relu(node.attributes.get_float("alpha", 0.01))
    if node.op_type == "Clip" and len(node.inputs) > 1:
        bounds = [_bound(node, k, facts) for k in (1, 2)]
        if None not in bounds:
            return clip(bounds[0] or 0.0, bounds[1] or 0.0)
    return None


def _bound(node: ir.Node, index: int, facts: Facts) -> float | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return -math.inf if index == 1 else math.inf
    array = facts.array(value)
    return None if array is None else float(np.asarray(array).reshape(()))


def _reads_first(last: LastFactor) -> bool:
    return last.node.inputs[1] is last.weight


def _pointwise(read: PatchStatistic) -> bool:
    ones = (*read.kernel, *read.strides)
    return all(k == 1 for k in ones) and not any(read.pads)
