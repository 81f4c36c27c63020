"""Random values for one input, within the domain that the graph leaves it."""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.calibration.domains import Domain
    from structopt_onnx.calibration.layout import Array
    from structopt_onnx.runtime.session import TensorInfo

_WORDS = ("a", "b", "the", "2")
_BYTE = 8
# Of the values of an index that is also compared with constants, this share are such constants.
_COMPARED_SHARE = 0.125


def draw(
    info: TensorInfo,
    shape: tuple[int, ...],
    domain: Domain,
    sizes: Mapping[str, int],
    *,
    seed: tuple[int, ...],
    turn: int,
) -> Array:
    """Draw one input.

    Parameters
    ----------
    info
        Name and dtype of the input.
    shape
        Its concrete shape.
    domain
        Values that suit it.
    sizes
        Sizes of the symbolic dimensions in this sample.
    seed
        What makes this draw differ from others; the input's name is mixed in.
    turn
        Which of several decisive values a scalar takes.
    """
    rng = np.random.default_rng([*seed, zlib.crc32(info.name.encode())])
    if info.type == "tensor(string)":
        words = [c for c in domain.compared if isinstance(c, str)] or list(_WORDS)
        return np.array(rng.choice(np.array(words, dtype=object), size=shape), dtype=object)
    dtype = np.dtype(info.dtype)
    kind = ir.DataType.from_numpy(dtype)
    if kind == ir.DataType.BOOL:
        masked = "mask" in info.name.lower()
        return _prefixes(shape, rng) if masked else rng.integers(0, 2, shape).astype(np.bool_)
    if kind.is_integer():
        return np.asarray(_integers(info, shape, domain, sizes, rng=rng, turn=turn)).astype(dtype)
    if domain.positive:
        return np.asarray(rng.uniform(0.1, 1.0, shape)).astype(dtype)
    values = np.asarray(rng.standard_normal(shape))
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def _integers(
    info: TensorInfo,
    shape: tuple[int, ...],
    domain: Domain,
    sizes: Mapping[str, int],
    *,
    rng: np.random.Generator,
    turn: int,
) -> Array:
    kind = ir.DataType.from_numpy(np.dtype(info.dtype))
    compared = np.array([c for c in domain.compared if isinstance(c, int)], dtype=np.int64)
    bounds = [sizes[name] for name in domain.dims if name in sizes]
    bounds += [] if domain.high is None else [domain.high]
    if bounds:
        high = max(min(bounds), domain.low + 1)
        drawn = rng.integers(domain.low, high, shape)
        legal = compared[(compared >= domain.low) & (compared < high)]
        if len(legal):
            decisive = rng.random(shape) < _COMPARED_SHARE
            drawn = np.where(decisive, rng.choice(legal, shape), drawn)
        return _representable(drawn, kind)
    if len(compared):
        if not shape:
            # Decisive values in turn, then one that is none of them: the other branch.
            other = next(c for c in itertools.count(1) if c not in compared)
            return _representable([*compared, other][turn % (len(compared) + 1)], kind)
        return _representable(rng.choice(np.append(compared, (0, 1)), shape), kind)
    if domain.count:
        return rng.integers(1, 3, shape)
    if domain.index:
        return rng.integers(0, 2, shape)
    if "mask" in info.name.lower() and shape:
        return _prefixes(shape, rng)
    if kind.bitwidth == _BYTE and len(shape) > 1:
        # Quantized data, images above all, uses the whole range of a byte.
        return rng.integers(int(kind.min), int(kind.max) + 1, shape)
    return rng.integers(1, 3, shape) if len(shape) <= 1 else rng.integers(0, 2, shape)


def _representable(values: Any, kind: ir.DataType) -> Array:  # noqa: ANN401 - scalar or array
    clipped: Array = np.clip(values, max(kind.min, -(2**62)), min(kind.max, 2**62))
    return clipped


def _prefixes(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Ones, then zeros along the last axis, at least one one: a mask of padded sequences."""
    if not shape:  # a scalar mask lets everything through
        return np.array(True)
    lengths = rng.integers(1, max(shape[-1], 1) + 1, (*shape[:-1], 1))
    return np.arange(shape[-1]) < lengths
