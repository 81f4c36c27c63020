"""How much of an error in each feature of a layer's output the layers behind it see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.special

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

Vector = npt.NDArray[np.float64]

# What lets through what is above zero and little else.
_GATES = {"Relu", "Gelu", "HardSwish"}
# What acts on every number alone or within one feature, and adds nothing of its own per feature.
_ALIKE = {
    *("LeakyRelu", "Elu", "Selu", "Gelu", "Softplus", "Clip", "Sigmoid", "Tanh"),
    *("HardSwish", "HardSigmoid", "Identity", "Dropout", "Cast", "Pad", "Add", "Sub"),
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
}
# The more operators lie between, the less is what a scale says.
_MOST_STEPS = 8
# With gains as even as this (standard deviation over mean) the metric changes next to nothing.
_EVEN = 0.25
# No feature counts less than this share of the one that counts most: the way back divides by it.
_LEAST_GAIN = 1e-6


def seen_scales(
    value: ir.Value, axis: int, size: int, facts: Facts, passing: Vector | None = None
) -> Vector | None:
    """Return what to multiply the features of an output by before fitting.

    An error in feature c reaches the first layers behind with the share of positions at which a
    Relu is open, times the squares of normalization scales on the way, times the energy of the
    weights that read c, ``sum_o V[o, c]^2``. With D the roots of these gains, ``D W`` is fitted
    in place of W and its last factor divided by D.

    Parameters
    ----------
    value, axis, size
        The output, its axis of features, and how many there are.
    facts
        What is known of the model.
    passing
        Share of positions at which each feature is above zero: see `share_above_zero`.

    Returns
    -------
    array or None
        Float64 [size], positive; None when nothing is known of what follows, or when it sees all
        features nearly alike.
    """
    open_share = np.ones(size) if passing is None else passing
    gains = _Listener(axis, size, facts, open_share).gains(value, _MOST_STEPS, fresh=True)
    if gains is None or not np.isfinite(gains).all():
        return None
    if gains.std() <= _EVEN * gains.mean():
        return None
    return np.asarray(np.sqrt(np.maximum(gains, _LEAST_GAIN * gains.max())))


def share_above_zero(mean: Vector, variance: Vector) -> Vector:
    """Return how often features are above zero, were they normally distributed, [m]."""
    spread = np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    return np.asarray(scipy.special.ndtr(mean / spread), np.float64)


@dataclass(frozen=True)
class _Listener:
    """Gains of the features along one axis, carried from operator to operator."""

    axis: int
    size: int
    facts: Facts
    passing: Vector

    def gains(self, value: ir.Value, steps: int, *, fresh: bool) -> Vector | None:
        """Sum over the readers of a value, each counted alike; None when none is known.

        The value is `fresh` while its distribution is still the one that `passing` is about.
        """
        total, known = np.full(self.size, float(value.is_graph_output())), False
        for node, index in value.uses():
            found = self._reader(node, index, steps, fresh=fresh) if node.domain == "" else None
            if found is not None and found.mean() > 0:
                known = True
                total += found / found.mean()
            else:
                total += 1
        return total if known else None

    def _reader(self, node: ir.Node, index: int, steps: int, *, fresh: bool) -> Vector | None:
        if node.op_type in {"Conv", "MatMul", "Gemm"}:
            return self._weight_energy(node, index)
        scale = self.passing if fresh and node.op_type in _GATES else self._scale(node, index)
        if scale is None or not steps:
            return None
        moved = node.op_type == "Add" and self.facts.tensor(node.inputs[1 - index]) is not None
        fresh &= moved or node.op_type in {"Identity", "Cast", "Dropout"}
        behind = self.gains(node.outputs[0], steps - 1, fresh=fresh)
        if behind is not None:
            return scale * behind
        return scale if scale.std() > 0 else None

    def _scale(self, node: ir.Node, index: int) -> Vector | None:
        """Return the squares of what an operator scales features by; None when it mixes them."""
        array = self.facts.array
        if node.op_type in {"Add", "Sub"} or (node.op_type in _ALIKE | _GATES and index == 0):
            return np.ones(self.size)
        if node.op_type == "Mul" or (node.op_type == "Div" and index == 0):
            factor = array(node.inputs[1 - index])
            if factor is None:
                return np.ones(self.size)
            made = self.facts.concrete(node.outputs[0])
            vector = self._per_feature(factor, None if made is None else len(made))
            if vector is None or node.op_type == "Mul":
                return vector
            return 1 / np.maximum(vector, np.finfo(np.float64).tiny)
        if node.op_type == "BatchNormalization" and index == 0 and self.axis == 1:
            gamma, variance = array(node.inputs[1]), array(node.inputs[4])
            if gamma is None or variance is None:
                return None
            given = node.attributes.get("epsilon")
            epsilon = 1e-5 if given is None else given.as_float()
            return np.asarray(gamma, np.float64) ** 2 / (np.asarray(variance, np.float64) + epsilon)
        if node.op_type == "LayerNormalization" and index == 0 and self.axis == -1:
            gamma = array(node.inputs[1])
            return None if gamma is None else self._per_feature(gamma, gamma.ndim)
        return None

    def _per_feature(self, factor: npt.NDArray[np.generic], rank: int | None) -> Vector | None:
        """Return the squares of a constant factor, one per feature; None where positions differ."""
        if rank is None or factor.ndim > rank:
            return None
        shape = (1,) * (rank - factor.ndim) + factor.shape
        if any(length != 1 for k, length in enumerate(shape) if k != self.axis % rank):
            return None
        squares = np.asarray(factor, np.float64).reshape(-1) ** 2
        return np.broadcast_to(squares, (self.size,)) if squares.size in {1, self.size} else None

    def _weight_energy(self, node: ir.Node, index: int) -> Vector | None:
        weight = self.facts.array(node.inputs[1]) if index == 0 else None
        if weight is None:
            return None
        squares = np.asarray(weight, np.float64) ** 2
        if node.op_type == "Conv" and self.axis == 1:
            given = node.attributes.get("group")
            groups = 1 if given is None else given.as_int()
            split = squares.reshape(groups, len(squares) // groups, squares.shape[1], -1)
            found = split.sum(axis=(1, 3)).reshape(-1)
        elif node.op_type == "Conv" or squares.ndim != 2:  # noqa: PLR2004 - a matrix
            return None
        else:
            flags = node.attributes if node.op_type == "Gemm" else {}
            turned = {k for k in ("transA", "transB") if k in flags and flags[k].as_int()}
            if self.axis != -1 and not (node.op_type == "Gemm" and self.axis == 1):
                return None
            if "transA" in turned:
                return None
            found = squares.sum(axis=0 if "transB" in turned else 1)
        return found if found.size == self.size else None
