"""Walks over a ModelProto, and the checks that its structure and tensors must pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from onnx import TensorProto

from structopt_onnx.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.external import DataFolder

_Message = onnx.ModelProto | onnx.GraphProto

# The field that holds the elements of a tensor without raw data; int32_data for all others.
_TYPED_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}
_ALL_FIELDS = (*dict.fromkeys(_TYPED_FIELDS.values()), "int32_data")


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the root cause of an error as one line of at most `limit` characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def scopes(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield the main graph, every function and every graph nested in them."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [*reversed(model.functions), model.graph]
    while pending:
        scope = pending.pop()
        yield scope
        for node in scope.node:
            for attribute in node.attribute:
                pending.extend(attribute.graphs)
                if attribute.HasField("g"):
                    pending.append(attribute.g)


def attributes(
    scope: onnx.GraphProto | onnx.FunctionProto,
) -> Iterator[tuple[str, onnx.AttributeProto, onnx.NodeProto | None]]:
    """Yield (label, attribute, node) in one scope; no node for the defaults of a function."""
    if isinstance(scope, onnx.FunctionProto):
        for attribute in scope.attribute_proto:
            yield f"attribute {attribute.name!r} of function {scope.name!r}", attribute, None
    for node in scope.node:
        for attribute in node.attribute:
            yield f"attribute {attribute.name!r} of {_title(node)}", attribute, node


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield (label, tensor) for every tensor, but not for the parts of sparse tensors."""
    for scope in scopes(model):
        if isinstance(scope, onnx.GraphProto):
            for tensor in scope.initializer:
                yield f"initializer {tensor.name!r}", tensor
        for label, attribute, _ in attributes(scope):
            if attribute.HasField("t"):
                yield label, attribute.t
            for tensor in attribute.tensors:
                yield label, tensor


def _title(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"node {name!r} ({node.op_type})"


def tensor_nbytes(source: str, label: str, tensor: TensorProto) -> int:
    """Return the bytes that a tensor's element type and shape need; 0 for strings.

    Raises
    ------
    ModelError
        The element type is unknown or a dimension is negative.
    """
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise ModelError(
            f"{source}: {label}: unknown element type {tensor.data_type}; update onnx and onnx-ir"
        ) from error
    if dtype == ir.DataType.UNDEFINED or min(tensor.dims, default=0) < 0:
        raise ModelError(
            f"{source}: {label}: no element type or a negative dimension; export the model again"
        )
    if dtype == ir.DataType.STRING:
        return 0
    count: int = math.prod(tensor.dims)
    return math.ceil(count * dtype.bitwidth / 8)


def check_payload(label: str, tensor: TensorProto, folder: DataFolder) -> None:
    """Check that a tensor holds, inline or in a data file, the elements that its shape needs.

    Parameters
    ----------
    label
        How messages name the tensor.
    tensor
        Changed in one case: an external tensor without elements becomes an inline one, since
        nothing can be mapped.
    folder
        Where external data is looked for.

    Raises
    ------
    ModelError
        It does not; a library would read beyond the end or fail much later.
    """
    nbytes = tensor_nbytes(folder.source, label, tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"{folder.source}: {label}: strings can't be external data")
        folder.span(label, tensor, nbytes)
        if nbytes == 0:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
        return
    field = _TYPED_FIELDS.get(tensor.data_type, "int32_data")
    held = {name: len(getattr(tensor, name)) for name in _ALL_FIELDS}
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        size, needed, unit = len(tensor.raw_data), nbytes, "bytes"
    else:
        size, needed, unit = held.pop(field), _entries(tensor), f"entries in {field}"
    if size != needed or any(held.values()):
        also = "" if size != needed else ", and more in another field"
        raise ModelError(
            f"{folder.source}: {label}: holds {size} {unit}{also}, its element type and shape"
            f" need {needed}; the file is damaged, export the model again"
        )


def _entries(tensor: TensorProto) -> int:
    """Return how many entries the typed field of a tensor must have."""
    count: int = math.prod(tensor.dims)
    if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        return 2 * count
    if tensor.data_type == TensorProto.STRING:
        return count
    bitwidth = ir.DataType(tensor.data_type).bitwidth
    return math.ceil(count * bitwidth / 8) if bitwidth in {2, 4} else count


def check_structure(model: onnx.ModelProto, source: str) -> None:
    """Run onnx's checker on a model without its weights.

    Weights are left out, so a model of any size and one with external data can be checked
    without a second copy in memory; `check_payload` looks at them. Shape inference is left out:
    it rejects valid models with sparse initializers. Inputs and outputs of unknown rank, which
    the checker wants none of, are let through: runtimes take them.

    Parameters
    ----------
    model
        Not changed; must hold no sparse tensors with indices other than INT64.
    source
        How messages name the model.

    Raises
    ------
    ModelError
        The checker's complaint, in one line.
    """
    light = onnx.ModelProto()
    _copy_fields(model, light, "graph")
    _copy_fields(model.graph, light.graph, "initializer")
    light.graph.SetInParent()
    for tensor in model.graph.initializer:
        light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    for _, tensor in tensors(light):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
    for scope in scopes(light):
        if isinstance(scope, onnx.GraphProto):
            for info in (*scope.input, *scope.output):
                if info.type.HasField("tensor_type"):
                    info.type.tensor_type.shape.SetInParent()
    if not _is_text(light):
        raise ModelError(
            f"{source}: holds names or notes that are not UTF-8; it is damaged, export it again"
        )
    try:
        onnx.checker.check_model(light)
    except Exception as error:  # the checker raises several kinds, all say the same
        raise ModelError(f"{source}: not a valid ONNX model: {one_line(error)}") from error


def _is_text(message: onnx.ModelProto) -> bool:
    """Whether all strings are UTF-8; protobuf hands out others as bytes, or raises."""
    try:
        for field, value in message.ListFields():
            entries = value if field.is_repeated else (value,)
            if field.message_type and not all(_is_text(entry) for entry in entries):
                return False
            if field.type == field.TYPE_STRING and any(isinstance(e, bytes) for e in entries):
                return False
    except UnicodeDecodeError:
        return False
    return True


def _copy_fields(origin: _Message, copy: _Message, left_out: str) -> None:
    """Copy all set fields of a message but one."""
    for field, value in origin.ListFields():
        if field.name == left_out:
            continue
        if isinstance(value, int | float | str | bytes):
            setattr(copy, field.name, value)
        elif hasattr(value, "ListFields"):  # a message
            getattr(copy, field.name).CopyFrom(value)
        else:
            getattr(copy, field.name).extend(value)
