"""What a tensor with zeros takes in each encoding, and the arrays that an encoding stores.

An element is nonzero when it has any bit set: -0.0 is. The layouts:

``initializer``
    ONNX's own SparseTensorProto, linear indices as variable-length INT64; see `model.sparse`.
``bitmask``
    A bit per element, and the nonzeros in order.
``delta``
    A byte per nonzero, how far it is from the one before; where that is more than 255, zeros are
    stored in between (S. Han et al., "Deep Compression", ICLR 2016, section 2).

The last two store their values as they are, as float16 where that loses no bit, or as codes of a
table where there are at most 255 different ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.sparse import any_bit

if TYPE_CHECKING:
    from collections.abc import Iterator

Layout = Literal["initializer", "bitmask", "delta"]
Values = Literal["plain", "half", "palette"]

DECODED_TYPES = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL}
    | {ir.DataType[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (8, 16, 32, 64)}
)
"""Element types that onnxruntime decodes while it loads."""

COLOURS = 255
"""Different nonzeros that a table can hold beside a zero."""
LEAST_BYTES = 4096
"""Smaller tensors stay dense."""
_LARGEST_GAP = 255
_SAMPLED = 4096
# What names, shapes and the nodes of a decode graph take of a file.
_OVERHEAD: dict[Layout, int] = {"initializer": 256, "bitmask": 2048, "delta": 1408}
_HALF_OVERHEAD, _PALETTE_OVERHEAD = 192, 512
_VARINT_BITS = 7


@dataclass(frozen=True)
class Encoding:
    """One encoding of a tensor.

    Parameters
    ----------
    layout, values
        How positions and values are stored.
    nbytes
        What it takes of a file, its nodes included.
    """

    layout: Layout
    values: Values
    nbytes: int

    @property
    def label(self) -> str:
        """Name it for people, such as ``bitmask, half``."""
        return self.layout if self.values == "plain" else f"{self.layout}, {self.values}"


@dataclass(frozen=True)
class Nonzeros:
    """The elements of a tensor that have a bit set.

    Parameters
    ----------
    flat
        All elements in order.
    """

    flat: np.ndarray
    where: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Find them: `where` is their linear indices, int64, ascending."""
        object.__setattr__(self, "where", np.flatnonzero(any_bit(self.flat)))

    @staticmethod
    def of(tensor: ir.TensorProtocol) -> Nonzeros | None:
        """Return those of a tensor; None for strings and tensors without elements."""
        if tensor.dtype == ir.DataType.STRING or tensor.size == 0:
            return None
        return Nonzeros(np.ascontiguousarray(tensor.numpy()).reshape(-1))

    @property
    def density(self) -> float:
        """Share of the elements that are nonzero."""
        return self.where.size / self.flat.size

    @cached_property
    def gaps(self) -> np.ndarray:
        """Return how far each is from the one before it, the first from the start; int64."""
        return np.asarray(np.diff(self.where, prepend=0))

    @cached_property
    def fillers(self) -> np.ndarray:
        """Return how many zeros must be stored before each for gaps to fit a byte; int64."""
        return np.asarray(np.maximum(self.gaps - 1, 0) // _LARGEST_GAP)

    @property
    def steps(self) -> int:
        """Count the entries of the delta layout, which has one at least."""
        return max(1, self.where.size + int(self.fillers.sum()))

    @cached_property
    def bits(self) -> np.ndarray:
        """Return the nonzeros' bits as unsigned integers."""
        values = np.ascontiguousarray(self.flat[self.where])
        return np.asarray(values.view(f"u{values.itemsize}"))

    @cached_property
    def colours(self) -> np.ndarray | None:
        """Return the different values in order of their bits; None where there are too many."""
        if np.unique(self.bits[:_SAMPLED]).size > COLOURS:
            return None
        found = np.unique(self.bits)
        return found if found.size <= COLOURS else None

    @cached_property
    def halves(self) -> np.ndarray | None:
        """Return float32 nonzeros as float16; None where a bit is lost, or one is no number."""
        if self.flat.dtype != np.float32:
            return None
        values = self.flat[self.where]
        with np.errstate(over="ignore"):
            half: np.ndarray = values.astype(np.float16)
        same = half.astype(np.float32).view(np.uint32) == self.bits
        return half if bool(same.all()) and not np.isnan(values).any() else None

    def index_bytes(self) -> int:
        """Return what linear indices take as variable-length integers."""
        ends = [1 << bits for bits in range(_VARINT_BITS, 63, _VARINT_BITS)]
        longer = self.where.size - np.searchsorted(self.where, ends)
        return int(self.where.size + longer.sum())


def encodings(tensor: ir.TensorProtocol) -> list[Encoding]:
    """List the encodings in which a tensor takes less of a file than it is dense, least first.

    Whether a runtime decodes the element type is not asked here; see `DECODED_TYPES`.
    """
    nonzeros = Nonzeros.of(tensor)
    if nonzeros is None or tensor.shape.rank() == 0:
        return []
    smaller = (e for e in _all(tensor, nonzeros) if e.nbytes < tensor.nbytes)
    return sorted(smaller, key=lambda encoding: encoding.nbytes)


def encoded_bytes(tensor: ir.TensorProtocol) -> int:
    """Return what a tensor takes of a file where ``encode-sparse`` is free to choose."""
    if tensor.nbytes < LEAST_BYTES:
        return tensor.nbytes
    return min((encoding.nbytes for encoding in encodings(tensor)), default=tensor.nbytes)


def _all(tensor: ir.TensorProtocol, nonzeros: Nonzeros) -> Iterator[Encoding]:
    count = nonzeros.where.size
    listed = count * tensor.dtype.bitwidth // 8 + nonzeros.index_bytes()
    yield Encoding("initializer", "plain", listed + _OVERHEAD["initializer"])
    if tensor.dtype not in DECODED_TYPES:
        return
    # Value forms with the bytes of an entry and those beside it.
    forms: list[tuple[Values, int, int]] = [("plain", nonzeros.flat.itemsize, 0)]
    if nonzeros.halves is not None:
        forms.append(("half", 2, _HALF_OVERHEAD))
    if nonzeros.flat.itemsize > 1 and nonzeros.colours is not None:
        table = nonzeros.flat.itemsize * (nonzeros.colours.size + 1)
        forms.append(("palette", 1, table + _PALETTE_OVERHEAD))
    index = -(-nonzeros.flat.size // 8) + _OVERHEAD["bitmask"]
    for values, size, beside in forms:
        yield Encoding("bitmask", values, index + size * (count + 1) + beside)
    if count * (1 + min(size for _, size, _ in forms)) >= tensor.nbytes:
        return  # gaps would be much work for nothing
    index = nonzeros.steps + _OVERHEAD["delta"]
    for values, size, beside in forms:
        yield Encoding("delta", values, index + size * nonzeros.steps + beside)


@dataclass(frozen=True)
class Stored:
    """The arrays of a bitmask or delta encoding.

    Parameters
    ----------
    index
        uint8: eight elements a byte, the first in the highest bit, or the gaps.
    values
        One per entry of the index that is set; a bitmask's begin with a zero, which all other
        elements read. Of the tensor's type, float16, or uint8 codes.
    table
        What the codes stand for, the first a zero; None without codes.
    """

    index: np.ndarray
    values: np.ndarray
    table: np.ndarray | None = None


def stored(nonzeros: Nonzeros, encoding: Encoding) -> Stored:
    """Return the arrays of an encoding other than ``initializer``."""
    table = None
    values = nonzeros.flat[nonzeros.where]
    if encoding.values == "half" and nonzeros.halves is not None:
        values = nonzeros.halves
    elif encoding.values == "palette" and nonzeros.colours is not None:
        values = (np.searchsorted(nonzeros.colours, nonzeros.bits) + 1).astype(np.uint8)
        zero = np.zeros(1, nonzeros.colours.dtype)
        table = np.concatenate([zero, nonzeros.colours]).view(nonzeros.flat.dtype)
    if encoding.layout == "bitmask":
        mask = np.zeros(nonzeros.flat.size, bool)
        mask[nonzeros.where] = True
        return Stored(np.packbits(mask), np.concatenate([np.zeros(1, values.dtype), values]), table)
    at = np.arange(nonzeros.where.size) + np.cumsum(nonzeros.fillers)
    index = np.full(nonzeros.steps, _LARGEST_GAP if at.size else 0, np.uint8)
    index[at] = nonzeros.gaps - _LARGEST_GAP * nonzeros.fillers
    filled = np.zeros(nonzeros.steps, values.dtype)
    filled[at] = values
    return Stored(index, filled, table)
