"""What a pruned weight is fitted to, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.linalg.low_rank import blended_inputs, white_level
from structopt_onnx.linalg.pruning import Inputs
from structopt_onnx.linalg.separable import unseen_share

if TYPE_CHECKING:
    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.passes.low_rank.last_factor import LastFactor

FloatArray = npt.NDArray[np.float64]
# White inputs that are always mixed in: what the samples never show must have some answer.
_LEAST_WHITE = 1e-6


@dataclass(frozen=True, eq=False)
class Packed:
    """A sparse array kept in little memory: a bit per element, and those that are not zero."""

    bits: npt.NDArray[np.uint8]
    values: npt.NDArray[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Packed:
        """Pack an array."""
        return cls(np.packbits(array != 0), array[array != 0], array.shape)

    def array(self) -> npt.NDArray[Any]:
        """Return it as it was."""
        found = np.zeros(int(np.prod(self.shape)), self.values.dtype)
        found[np.unpackbits(self.bits, count=found.size).astype(bool)] = self.values
        return found.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Fit:
    """A weight and what is known of its inputs.

    Parameters
    ----------
    found
        The weight, where it was found.
    moments
        Of its inputs; None where the weight alone decides.
    white
        Share of white inputs among those that are fitted; errors count on the data alone.
    """

    found: LastFactor
    moments: Moments | None
    white: float

    @classmethod
    def of(cls, found: LastFactor, moments: Moments | None, unseen: float) -> Fit:
        """Fit to moments that there is something to fit to in; `unseen` as of `unseen_share`."""
        # What is fitted stays what it was when the model gets new numbers.
        weight = ir.Value(name=found.weight.name, const_value=found.weight.const_value)
        found = replace(found, weight=weight)
        if moments is None:
            return cls(found, None, 0.0)
        white = max(_LEAST_WHITE, unseen_share(unseen, moments.count / moments.mean.size))
        fit = cls(found, moments, white)
        return fit if white_level(fit._seen(moments), found.factor()) > 0 else cls(found, None, 0.0)

    def inputs(self, weight: FloatArray) -> Inputs | None:
        """Return what pruning is to go by."""
        if self.moments is None:
            return None
        return Inputs(blended_inputs(self._seen(self.moments), weight, self.white))

    def error(self, weight: FloatArray, sparse: FloatArray) -> float:
        """Return the squared error at the output over its variance, or over its second moment.

        The latter where the bias can't change, so that the mean is off as well.
        """
        lost = weight - sparse
        if self.moments is None:
            energy = float(np.sum(weight**2))
            return float(np.sum(lost**2)) / energy if energy > 0 else 0.0
        seen, spread = self._seen(self.moments), self.moments.covariance
        energy = float(np.sum((weight @ spread) * weight))
        if self.found.addend is None:
            energy += float(np.sum((weight @ self.moments.mean + self.found.bias) ** 2))
        return float(np.sum((lost @ seen) * lost)) / energy if energy > 0 else 1.0

    def bias(self, weight: FloatArray, sparse: FloatArray) -> FloatArray:
        """Return the bias with what the mean of the output loses, where it can change."""
        if self.moments is None or self.found.addend is None:
            return self.found.bias
        return self.found.bias + (weight - sparse) @ self.moments.mean

    def _seen(self, moments: Moments) -> FloatArray:
        return moments.second_moment if self.found.addend is None else moments.covariance


def is_still(fitted: LastFactor, now: LastFactor) -> bool:
    """Whether a weight found again is the one that was fitted."""
    was, found = fitted.weight.const_value, now.weight.const_value
    if was is None or found is None or (now.addend is None) != (fitted.addend is None):
        return False
    return found is was or bool(np.array_equal(found.numpy(), was.numpy()))
