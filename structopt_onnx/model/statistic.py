"""Which activation moments a pass wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Statistic:
    """Mean and covariance of one axis of an activation, pooled over samples.

    Parameters
    ----------
    values
        Names of the tensors pooled together, all of the main graph. More than one where several
        nodes share one weight, so that the weight is judged on everything it makes.
    axis
        The feature axis; every position along the other axes is one observation. It may be
        negative, as in NumPy.
    """

    values: tuple[str, ...]
    axis: int

    def reads(self) -> tuple[str, ...]:
        """Return the names of all tensors that `rows` looks at."""
        return self.values

    def rows(self, array: Array, arrays: Mapping[str, Array]) -> Array:
        """Return what one tensor shows: observations, features on the last axis.

        Parameters
        ----------
        array
            One of `values`, with at least the feature axis.
        arrays
            Every tensor of `reads`, by name, of the same run.
        """
        del arrays
        return np.moveaxis(array, self.axis, -1)


@dataclass(frozen=True)
class PatchStatistic(Statistic):
    """Moments of the patches that a convolution multiplies with its filters (im2col).

    Features are ordered as a filter is stored: channel, then position in the kernel. An
    observation is one output position; padding is zeros. The tensor is [N, C, spatial...].

    Parameters
    ----------
    kernel, strides, dilations
        One number per spatial axis.
    pads
        Begins, then ends, as in ONNX's Conv.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def rows(self, array: Array, arrays: Mapping[str, Array]) -> Array:
        """Return the patches, [N * output positions, C * kernel positions]."""
        del arrays
        rank = len(self.kernel)
        sides = list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        padded = np.pad(array, [(0, 0), (0, 0), *sides])
        spans = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        axes = tuple(range(2, 2 + rank))
        if any(padded.shape[a] < span for a, span in zip(axes, spans, strict=True)):
            return np.empty((0, array.shape[1] * int(np.prod(self.kernel))), array.dtype)
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        steps = [slice(None, None, s) for s in self.strides]
        taps = [slice(None, None, d) for d in self.dilations]
        windows = windows[(slice(None), slice(None), *steps, *taps)]
        # [N, C, positions..., taps...] -> [N, positions..., C, taps...]
        windows = np.moveaxis(windows, 1, 1 + rank)
        return windows.reshape(-1, array.shape[1] * int(np.prod(self.kernel)))


@dataclass(frozen=True)
class PatchTargetStatistic(PatchStatistic):
    """Joint moments of patches and of what is to be made of each: patches first, then targets.

    Parameters
    ----------
    target
        Name of the tensor [N, M, positions...] with one position per patch.
    """

    target: str

    def reads(self) -> tuple[str, ...]:
        """Return the names of all tensors that `rows` looks at."""
        return (*self.values, self.target)

    def rows(self, array: Array, arrays: Mapping[str, Array]) -> Array:
        """Return patches and targets side by side, [positions, C * kernel positions + M]."""
        patches = super().rows(array, arrays)
        targets = np.moveaxis(arrays[self.target], 1, -1)
        return np.concatenate([patches, targets.reshape(-1, targets.shape[-1])], axis=1)


@dataclass(frozen=True)
class BlockStatistic(Statistic):
    """Moments of the means of blocks of positions, and what differs within the blocks.

    The last feature is the mean squared deviation from a block's mean, summed over channels. The
    tensor is [N, C, spatial...].

    Parameters
    ----------
    steps
        Size of a block along each spatial axis, a divisor of that axis's size.
    """

    steps: tuple[int, ...]

    def rows(self, array: Array, arrays: Mapping[str, Array]) -> Array:
        """Return one row per block, [N * blocks, C + 1]."""
        del arrays
        count, channels, *sizes = array.shape
        split = [n for size, s in zip(sizes, self.steps, strict=True) for n in (size // s, s)]
        parts = array.astype(np.float64).reshape(count, channels, *split)
        within = tuple(range(3, parts.ndim, 2))
        means = parts.mean(axis=within, keepdims=True)
        spread = ((parts - means) ** 2).mean(axis=within).sum(axis=1)
        made = np.moveaxis(means.squeeze(within), 1, -1).reshape(-1, channels)
        return np.concatenate([made, spread.reshape(-1, 1)], axis=1)


@dataclass(frozen=True)
class SequenceStatistic(Statistic):
    """Moments of a sequence's features at the steps that are not padding.

    The tensor is [steps, batch, features], as ONNX's RNN, GRU and LSTM read it.

    Parameters
    ----------
    lengths
        Name of the tensor with the number of valid steps per batch entry.
    """

    lengths: str

    def reads(self) -> tuple[str, ...]:
        """Return the names of all tensors that `rows` looks at."""
        return (*self.values, self.lengths)

    def rows(self, array: Array, arrays: Mapping[str, Array]) -> Array:
        """Return the valid steps, [sum of lengths, features]."""
        valid = np.arange(array.shape[0])[:, None] < arrays[self.lengths].reshape(1, -1)
        return np.moveaxis(array, self.axis, -1)[valid]
