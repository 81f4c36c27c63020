"""Sparse initializers from and as scipy's sparse arrays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import onnx_ir as ir
import scipy.sparse

from structopt_onnx.errors import UsageError
from structopt_onnx.model.external import DataFolder
from structopt_onnx.model.sparse import any_bit, coordinates, sparse_tensor

if TYPE_CHECKING:
    import onnx

_MATRIX = 2
_MOST_ELEMENTS = 2**63 - 1
_SCIPY_TYPES = "?bBhHiIlLqQfdFD"  # what its compressed formats are compiled for


def from_scipy(matrix: Any, name: str) -> onnx.SparseTensorProto:  # noqa: ANN401 - below
    """Return a sparse initializer that holds a scipy sparse array or matrix.

    ::

        model.graph.sparse_initializer.append(so.from_scipy(matrix, "weight"))

    Parameters
    ----------
    matrix
        In CSR, CSC, COO or another of scipy's formats; of any rank where that is COO. Not changed.
        Repeated entries are added up, stored zeros are left out, except -0.0.
    name
        The initializer's name.

    Returns
    -------
    onnx.SparseTensorProto
        With linear INT64 indices in ascending order, as the standard's checker wants them.

    Raises
    ------
    UsageError
        It is no sparse array, has no elements, or an element type that ONNX lacks.
    """
    given = matrix  # stays untyped: the check below would narrow it to a class without members
    if not scipy.sparse.issparse(matrix):
        raise UsageError(f"'{name}': not a scipy sparse array but {type(given).__name__}")
    shape = tuple(int(size) for size in given.shape)
    if not 0 < math.prod(shape) <= _MOST_ELEMENTS:
        raise UsageError(f"'{name}': shape {list(shape)} has no elements or more than 2^63")
    entries = scipy.sparse.coo_array(given, copy=True)
    entries.sum_duplicates()
    try:
        dtype = ir.DataType.from_numpy(entries.dtype)
    except TypeError as error:
        raise UsageError(f"'{name}': ONNX has no element type {entries.dtype}") from error
    linear = np.zeros(entries.nnz, np.int64)
    for axis, places in enumerate(entries.coords):
        linear = linear * shape[axis] + places
    order = np.argsort(linear)
    values = np.ascontiguousarray(entries.data[order])
    kept = any_bit(values)
    listed = ir.Tensor(np.ascontiguousarray(values[kept]), dtype=dtype)
    return sparse_tensor(listed, linear[order][kept], shape, name)


@overload
def to_scipy(
    sparse: onnx.SparseTensorProto, layout: Literal["csr"] = ..., *, folder: str | Path = ...
) -> scipy.sparse.csr_array: ...
@overload
def to_scipy(
    sparse: onnx.SparseTensorProto, layout: Literal["csc"], *, folder: str | Path = ...
) -> scipy.sparse.csc_array: ...
@overload
def to_scipy(
    sparse: onnx.SparseTensorProto, layout: Literal["coo"], *, folder: str | Path = ...
) -> scipy.sparse.coo_array: ...
def to_scipy(
    sparse: onnx.SparseTensorProto,
    layout: Literal["csr", "csc", "coo"] = "csr",
    *,
    folder: str | Path = ".",
) -> scipy.sparse.csr_array | scipy.sparse.csc_array | scipy.sparse.coo_array:
    """Return a sparse initializer, or the value of a Constant, as a scipy sparse array.

    ::

        weights = {s.values.name: so.to_scipy(s) for s in model.graph.sparse_initializer}

    Parameters
    ----------
    sparse
        In any form that the standard or onnxruntime knows: linear indices or one row per element,
        INT8 to INT64, raw, typed or external.
    layout
        Of the result; tensors of a rank other than 2 fit ``coo`` only.
    folder
        Where external data lies: the folder of the model's file.

    Raises
    ------
    ModelError
        The tensor is malformed, or takes more than 2 GB when dense.
    UsageError
        The layout does not fit the rank, or scipy lacks the element type.
    """
    name = sparse.values.name
    if layout not in ("csr", "csc", "coo"):
        raise UsageError(f"layout is one of csr, csc, coo, not '{layout}'")
    shape = tuple(sparse.dims)
    if len(shape) != _MATRIX and layout != "coo":
        raise UsageError(f"'{name}': a tensor of rank {len(shape)} is no matrix; take layout 'coo'")
    where = DataFolder("<SparseTensorProto>", Path(folder))
    values, linear = coordinates(sparse, f"sparse initializer {name!r}", where)
    if values.dtype.char not in _SCIPY_TYPES:
        raise UsageError(f"'{name}': scipy has no sparse arrays of {values.dtype}")
    places = np.unravel_index(linear, shape)
    entries = scipy.sparse.coo_array((values, places), shape=shape)
    if layout == "coo":
        return entries
    return entries.tocsr() if layout == "csr" else entries.tocsc()
