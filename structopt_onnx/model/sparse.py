"""Sparse tensors: made dense before the IR sees the model (it would drop them), and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from structopt_onnx.errors import ModelError
from structopt_onnx.model.protos import attributes, check_payload, scopes, tensor_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.model.external import DataFolder

MARK = "structopt_onnx.sparse"
"""Key in `meta` of a value, and of its tensor, that arrived sparse and is to be saved so."""

DENSE_LIMIT = 2**31 - 1
"""Bytes that all sparse tensors of one model may take when dense: what one ONNX file can hold."""

_INDEX_TYPES = {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}


def densify_model(model: onnx.ModelProto, folder: DataFolder) -> int:
    """Make every sparse initializer and `Constant(sparse_value)` of a model dense.

    Subgraphs and function bodies are covered. Each tensor so made carries `MARK` in its
    `metadata_props`.

    Parameters
    ----------
    model
        Changed in place.
    folder
        Where external parts lie, and how messages name the model.

    Returns
    -------
    int
        How many tensors were made dense.

    Raises
    ------
    ModelError
        A sparse tensor is malformed, all together are larger than `DENSE_LIMIT`, or one sits
        in an attribute that has no dense form.
    """
    found = list(_sparse_tensors(model, folder.source))
    total = 0
    for label, sparse, _ in found:  # before any is allocated
        total += _dense_nbytes(sparse, label, folder)
        if total > DENSE_LIMIT:
            raise ModelError(_too_large(folder, label, total))
    for label, sparse, place in found:
        dense = densify_tensor(sparse, label, folder)
        dense.metadata_props.add(key=MARK, value="1")
        if isinstance(place, onnx.GraphProto):
            dense.name = sparse.values.name
            place.initializer.append(dense)
        else:
            place.ClearField("sparse_tensor")
            place.name = "value"
            place.type = onnx.AttributeProto.TENSOR
            place.t.CopyFrom(dense)
    for scope in scopes(model):
        if isinstance(scope, onnx.GraphProto):
            scope.ClearField("sparse_initializer")
    return len(found)


def _sparse_tensors(
    model: onnx.ModelProto, source: str
) -> Iterator[tuple[str, onnx.SparseTensorProto, onnx.GraphProto | onnx.AttributeProto]]:
    """Yield (label, tensor, the graph whose initializer or the attribute whose value it is)."""
    for scope in scopes(model):
        if isinstance(scope, onnx.GraphProto):
            for sparse in scope.sparse_initializer:
                yield f"sparse initializer {sparse.values.name!r}", sparse, scope
        for label, attribute, node in attributes(scope):
            if not attribute.HasField("sparse_tensor") and not attribute.sparse_tensors:
                continue
            if node is None or node.op_type != "Constant" or node.domain:
                raise ModelError(
                    f"{source}: {label} is a sparse tensor, which only Constant nodes and"
                    " initializers may be; store it dense"
                )
            yield label, attribute.sparse_tensor, attribute


def _dense_nbytes(sparse: onnx.SparseTensorProto, label: str, folder: DataFolder) -> int:
    dims = list(sparse.dims)
    if not dims or min(dims) < 1:
        raise ModelError(
            f"{folder.source}: {label}: its dimensions are not all positive; store it dense"
        )
    dense = TensorProto(data_type=sparse.values.data_type, dims=dims)
    return tensor_nbytes(folder.source, label, dense)


def _too_large(folder: DataFolder, label: str, nbytes: int) -> str:
    return (
        f"{folder.source}: {label}: takes {nbytes} bytes when dense, with all sparse tensors"
        f" before it, and {DENSE_LIMIT} is the limit; split the model"
    )


def densify_tensor(sparse: onnx.SparseTensorProto, label: str, folder: DataFolder) -> TensorProto:
    """Return the dense form of a sparse tensor.

    Parameters
    ----------
    sparse
        Coordinates as one linear index per element, or as one row of `rank` per element; INT8,
        INT16, INT32 or INT64; raw, typed or external. Elements that are not listed are zero.
    label
        How messages name the tensor.
    folder
        Where external parts lie, and how messages name the model.

    Returns
    -------
    TensorProto
        With raw data; without a name.

    Raises
    ------
    ModelError
        The tensor breaks the standard's rules or is larger than `DENSE_LIMIT`; nothing of its dense
        size has been allocated then.
    """
    elements, linear = coordinates(sparse, label, folder)
    dims = list(sparse.dims)
    dense = np.zeros(math.prod(dims), elements.dtype)
    dense[linear] = elements
    data = ir.Tensor(dense, dtype=ir.DataType(sparse.values.data_type)).tobytes()
    return TensorProto(data_type=sparse.values.data_type, dims=dims, raw_data=data)


def coordinates(
    sparse: onnx.SparseTensorProto, label: str, folder: DataFolder
) -> tuple[np.ndarray, np.ndarray]:
    """Return the listed elements of a sparse tensor and their linear indices, int64, ascending.

    Parameters and errors are those of `densify_tensor`.
    """
    where = f"{folder.source}: {label}"
    dims, values, indices = list(sparse.dims), sparse.values, sparse.indices
    nbytes = _dense_nbytes(sparse, label, folder)
    if values.data_type == TensorProto.STRING:
        raise ModelError(f"{where}: sparse strings are not supported; store it dense")
    if nbytes > DENSE_LIMIT:
        raise ModelError(_too_large(folder, label, nbytes))
    nonzeros = values.dims[0] if len(values.dims) == 1 else -1
    if list(indices.dims) not in ([nonzeros], [nonzeros, len(dims)]):
        raise ModelError(
            f"{where}: values of shape {list(values.dims)} and indices of shape"
            f" {list(indices.dims)} don't fit a tensor of rank {len(dims)}; export it again"
        )
    if indices.data_type not in _INDEX_TYPES:
        raise ModelError(
            f"{where}: indices have element type {indices.data_type}; the standard wants INT64"
        )
    elements = _elements(values, f"values of {label}", folder)
    positions = _elements(indices, f"indices of {label}", folder).astype(np.int64)
    linear = _linear(positions, dims)
    if linear is None:
        raise ModelError(
            f"{where}: indices are out of range, repeated or not in ascending order; export it"
            " again"
        )
    return elements, linear


def _elements(part: TensorProto, label: str, folder: DataFolder) -> np.ndarray:
    check_payload(label, part, folder)
    if part.data_location == TensorProto.EXTERNAL:
        data = folder.read(label, part, tensor_nbytes(folder.source, label, part))
        part = TensorProto(data_type=part.data_type, dims=part.dims, raw_data=data)
    return np.asarray(ir.serde.deserialize_tensor(part).numpy())


def _linear(positions: np.ndarray, dims: list[int]) -> np.ndarray | None:
    """Return ascending distinct linear indices, or None where they are not that."""
    if positions.ndim == 2:  # noqa: PLR2004 - one row of coordinates per element
        if ((positions < 0) | (positions >= np.array(dims, np.int64))).any():
            return None
        strides = np.array([math.prod(dims[axis + 1 :]) for axis in range(len(dims))], np.int64)
        positions = positions @ strides
    if positions.size and (positions[0] < 0 or positions[-1] >= math.prod(dims)):
        return None
    return positions if bool((positions[1:] > positions[:-1]).all()) else None


def sparse_tensor(
    values: ir.TensorProtocol, linear: np.ndarray, dims: Sequence[int], name: str
) -> onnx.SparseTensorProto:
    """Return a tensor by its listed elements.

    Parameters
    ----------
    values
        The elements, [nonzeros].
    linear
        Where each is, [nonzeros], ascending.
    dims
        Shape of the tensor.
    name
        The initializer's name; empty for a Constant's `sparse_value`.
    """
    sparse = onnx.SparseTensorProto(dims=dims)
    sparse.values.name = name
    sparse.values.data_type = int(values.dtype)
    sparse.values.dims.append(linear.size)
    sparse.values.raw_data = values.tobytes()
    sparse.indices.data_type = TensorProto.INT64
    sparse.indices.dims.append(linear.size)
    sparse.indices.int64_data.extend(linear.tolist())
    return sparse


def sparsify_tensor(tensor: ir.TensorProtocol, name: str) -> onnx.SparseTensorProto | None:
    """Return the coordinate form of a tensor, or None where it would not be smaller.

    Every element with a bit set is listed: -0.0 and NaN keep their bits. Indices are linear
    INT64 (the checker wants no other) in `int64_data`, where the variable-length encoding takes
    1 to 5 bytes each for the sizes that occur; raw data would take 8.

    Parameters
    ----------
    tensor
        Any element type and shape.
    name
        The initializer's name; empty for a Constant's `sparse_value`.
    """
    if tensor.dtype == ir.DataType.STRING or tensor.size == 0 or tensor.shape.rank() == 0:
        return None
    flat = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    linear = np.flatnonzero(any_bit(flat))
    # An index takes a byte at least: most tensors with few zeros are told apart by the count.
    if linear.size * (8 + tensor.dtype.bitwidth) >= 8 * tensor.nbytes:
        return None
    values = ir.Tensor(flat[linear], dtype=tensor.dtype)
    sparse = sparse_tensor(values, linear, tuple(tensor.shape.numpy()), name)
    dense = TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    return sparse if sparse.ByteSize() < dense.ByteSize() + tensor.nbytes else None


def any_bit(flat: np.ndarray) -> np.ndarray:
    """Return which elements of a contiguous array of one dimension are not +0.0, bool [size]."""
    if flat.itemsize in {1, 2, 4, 8}:
        return np.asarray(flat.view(f"u{flat.itemsize}") != 0)
    return np.asarray(flat.view(np.uint8).reshape(flat.size, flat.itemsize).any(axis=1))
