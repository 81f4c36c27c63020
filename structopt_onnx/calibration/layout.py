"""How arrays that hold many samples are cut into the feeds of single runs, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from structopt_onnx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.runtime.session import TensorInfo

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

# Extension types (bfloat16, float8, int4) call themselves void; npz keeps only their bytes.
_EXTENSION = "V"


class Layout(Enum):
    """What one array holds: samples along its first axis, whole inputs, or one input for all."""

    BATCHED = auto()
    STACKED = auto()
    CONSTANT = auto()


@dataclass(frozen=True)
class Column:
    """Every sample's value of one input.

    Parameters
    ----------
    array
        The data as given, converted to the input's dtype.
    layout
        How samples lie in it.
    rows
        Rows per sample of a batched array.
    """

    array: Array
    layout: Layout
    rows: int = 1

    @property
    def count(self) -> int | None:
        """Number of samples; None when one value serves every sample."""
        return None if self.layout is Layout.CONSTANT else len(self.array) // self.rows

    def at(self, sample: int) -> Array:
        """Return the input of one sample as a view."""
        if self.layout is Layout.BATCHED:
            return self.array[sample * self.rows : (sample + 1) * self.rows]
        if self.layout is Layout.STACKED:
            return np.asarray(self.array[sample])
        return self.array


@dataclass(frozen=True)
class Part:
    """Samples whose arrays came together: one file, one mapping or one feed.

    Parameters
    ----------
    columns
        One column per input that the data names.
    count
        Number of samples.
    joinable
        Whether rows of consecutive samples may be one run: every input is batched by one row and
        leaves its first axis free under one common name.
    """

    columns: Mapping[str, Column]
    count: int
    joinable: bool

    def feed(self, sample: int) -> Feeds:
        """Return the feed of one sample, as views."""
        return {name: column.at(sample) for name, column in self.columns.items()}


def fit(
    arrays: Mapping[str, Array],
    inputs: Sequence[TensorInfo],
    optional: Sequence[TensorInfo] = (),
    *,
    origin: str,
    whole: bool = False,
) -> Part:
    """Match arrays to a model's inputs by the npz rule.

    An array of the input's rank is batched along its first axis: `x[i:i+1]` is one feed, or as
    many rows as the model's fixed first dimension asks for. An array of rank + 1 stacks whole
    inputs: `x[i]` is one feed. A scalar for a scalar input serves every sample. Another integer
    (floating-point) type than the model's is taken when every value survives the conversion;
    infinities are data (attention masks use them), NaN is not.

    Parameters
    ----------
    arrays
        One array per input.
    inputs
        Inputs that must be there.
    optional
        Inputs that may be left out (initializers that can be overridden).
    origin
        Name of the data in messages.
    whole
        Every array is one run's input as it is.

    Raises
    ------
    DataError
        When anything does not fit; lists everything that was expected and found.
    """
    known = {info.name: info for info in (*inputs, *optional)}
    problems = [f"'{i.name}' is missing" for i in inputs if i.name not in arrays]
    problems += [f"'{name}' is not an input" for name in arrays if name not in known]
    columns: dict[str, Column] = {}
    for name, array in arrays.items():
        if name in known:
            column = _column(np.asarray(array), known[name], whole=whole)
            if isinstance(column, str):
                problems.append(f"'{name}' {column}")
            else:
                columns[name] = column
    counts = {name: n for name, c in columns.items() if (n := c.count) is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {n}" for name, n in counts.items())
        problems.append(f"numbers of samples differ: {listed}")
    problems += [f"'{name}' holds no sample" for name, n in counts.items() if n == 0]
    if problems:
        expected = "; ".join(str(info) for info in inputs)
        found = "; ".join(_told(name, np.asarray(array)) for name, array in arrays.items())
        raise DataError(
            f"{origin} does not fit the model: {'; '.join(problems)}. "
            f"Expected {expected or 'no inputs'}; found {found or 'nothing'}"
        )
    return Part(columns, next(iter(counts.values()), 1), _joinable(columns, known))


def _told(name: str, array: Array) -> str:
    return f"{name}: {array.dtype}[{','.join(map(str, array.shape))}]"


def _is_string(info: TensorInfo) -> bool:
    return info.type == "tensor(string)"


def _column(array: Array, info: TensorInfo, *, whole: bool) -> Column | str:
    """Return the column an array makes, or what is wrong with it."""
    converted = _converted(array, info)
    if isinstance(converted, str):
        return converted
    rank = len(info.shape)
    if (whole or rank == 0) and array.ndim == rank:
        return _unless_wrong(Column(converted, Layout.CONSTANT), array.shape, info)
    if not whole and array.ndim == rank + 1:
        return _unless_wrong(Column(converted, Layout.STACKED), array.shape[1:], info)
    if whole or array.ndim != rank:
        wanted = str(rank) if whole else f"{rank} (batched) or {rank + 1} (stacked)"
        return f"has rank {array.ndim} instead of {wanted}"
    first = info.shape[0]
    rows = first if isinstance(first, int) and first > 0 else 1
    if len(array) % rows:
        return f"has {len(array)} rows, not a multiple of the model's fixed {rows}"
    return _unless_wrong(Column(converted, Layout.BATCHED, rows), (rows, *array.shape[1:]), info)


def _unless_wrong(column: Column, shape: tuple[int, ...], info: TensorInfo) -> Column | str:
    fits = all(not isinstance(w, int) or w == d for w, d in zip(info.shape, shape, strict=True))
    return column if fits else f"has shape {list(shape)} per sample"


def _converted(array: Array, info: TensorInfo) -> Array | str:
    """Return the array in the input's dtype, or why it can't be."""
    if _is_string(info):
        texts = array.dtype.kind == "U" or (
            array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat)
        )
        return array if texts else f"holds {array.dtype} instead of strings"
    if info.dtype is None:
        return f"is a {info.type}, and only tensors can be fed from data"
    if array.dtype.kind == _EXTENSION and array.dtype != info.dtype:
        raw = array.dtype.names is None and info.dtype.kind == _EXTENSION
        if raw and array.dtype.itemsize == info.dtype.itemsize and array.ndim:
            array = array.view(info.dtype)
    if array.dtype != info.dtype:
        given, wanted = array.dtype.kind, info.dtype.kind
        if not any(given in group and wanted in group for group in ("iu", "f" + _EXTENSION)):
            return f"has dtype {array.dtype}"
        with np.errstate(all="ignore"):
            converted = array.astype(info.dtype)
            back = converted.astype(array.dtype)
        same_sign = (
            given == wanted or given not in "iu" or bool(((converted < 0) == (array < 0)).all())
        )
        if not same_sign or not np.array_equal(back, array, equal_nan=given == "f"):
            return f"has dtype {array.dtype}, and its values do not all exist in {info.dtype}"
        array = converted
    if array.dtype.kind in "fc" + _EXTENSION and bool(np.isnan(array).any()):
        return "holds NaN"
    return array


def _joinable(columns: Mapping[str, Column], known: Mapping[str, TensorInfo]) -> bool:
    if not all(c.layout is Layout.BATCHED and c.rows == 1 for c in columns.values()):
        return False
    first = {known[name].shape[0] for name in columns}
    return len(first) == 1 and not isinstance(first.pop(), int)
