"""The IR as a ModelProto: weights filled in one by one, inline, sparse or beside the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from onnx import TensorProto

from structopt_onnx.errors import ModelError
from structopt_onnx.model.loading import FIRST_IR_WITH_OVERRIDABLE, SOURCE
from structopt_onnx.model.protos import one_line, scopes, tensors
from structopt_onnx.model.sparse import MARK, sparsify_tensor
from structopt_onnx.model.tensors import TensorSite, graphs, replace_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that one ONNX file can have."""

SIZE_MARGIN = 2**16
"""Bytes that `Skeleton.size` may be short by."""

_CHUNK_BYTES = 2**22
_SMALL_BYTES = 1024  # the entry of external data itself takes about 100


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as one proto with all its data inline.

    Values marked sparse are written sparse where that is smaller; with IR version < 4 every
    initializer is listed after the inputs, as that version demands.

    Parameters
    ----------
    model
        Not changed.

    Raises
    ------
    ModelError
        The proto would pass 2 GB, or the graph is broken.
    """
    skeleton = Skeleton(model)
    if not fits_one_file(skeleton.size):
        raise ModelError(
            f"{skeleton.source}: takes {skeleton.size} bytes, more than the 2 GB of one file;"
            " save it with external data"
        )
    return skeleton.fill()


def fits_one_file(size: int) -> bool:
    """Whether a model of so many bytes, as of `serialized_size`, can be written as one file."""
    return size + SIZE_MARGIN <= PROTOBUF_LIMIT


def serialized_size(model: ir.Model) -> int:
    """Return the bytes that a model takes with all its data, to a few bytes per large tensor."""
    return Skeleton(model).size


@dataclass(frozen=True, eq=False)
class Slot:
    """A tensor and the place in the skeleton that its data goes to."""

    proto: TensorProto
    tensor: ir.TensorProtocol
    external_allowed: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the data, as it will be written inline."""
        if isinstance(self.tensor, ir.serde.TensorProtoTensor):
            return int(self.tensor.raw.ByteSize())
        if self.tensor.dtype == ir.DataType.STRING:
            return sum(len(text) + 6 for text in _strings(self.tensor))
        return self.tensor.nbytes

    def fill(self) -> None:
        """Write the data inline."""
        if isinstance(self.tensor, ir.serde.TensorProtoTensor):
            name = self.proto.name
            self.proto.CopyFrom(self.tensor.raw)
            self.proto.name = name
            if not name:
                self.proto.ClearField("name")
            del self.proto.metadata_props[:]
            for key, text in sorted(self.tensor.metadata_props.items()):
                self.proto.metadata_props.add(key=key, value=text)
        elif self.tensor.dtype == ir.DataType.STRING:
            self.proto.string_data.extend(_strings(self.tensor))
        else:
            self.proto.raw_data = self._bytes()

    def place(self, location: str, offset: int) -> None:
        """Say that the data lies in another file; `offset` in bytes."""
        self.proto.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": self.tensor.nbytes}
        for key, entry in entries.items():
            self.proto.external_data.add(key=key, value=str(entry))

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the data piece by piece; a tensor in a file is never read as a whole."""
        tensor = self.tensor
        if not isinstance(tensor, ir.ExternalTensor):
            yield self._bytes()
            return
        start = tensor.offset or 0
        stop = start + tensor.nbytes
        if tensor.raw is not None:
            with memoryview(tensor.raw) as whole:
                for begin in range(start, stop, _CHUNK_BYTES):
                    yield whole[begin : min(begin + _CHUNK_BYTES, stop)]
            return
        try:
            with open(tensor.path, "rb") as file:  # noqa: PTH123 - a str already
                file.seek(start)
                while start < stop and (piece := file.read(min(_CHUNK_BYTES, stop - start))):
                    start += len(piece)
                    yield piece
        except OSError as error:
            raise _unreadable(tensor, error) from error
        if start < stop:
            raise _unreadable(tensor, EOFError(f"{tensor.path} became shorter"))

    def _bytes(self) -> bytes:
        try:
            return self.tensor.tobytes()
        except (OSError, ValueError) as error:
            raise _unreadable(self.tensor, error) from error


def _unreadable(tensor: ir.TensorProtocol, error: Exception) -> ModelError:
    return ModelError(
        f"tensor {tensor.name!r}: its data can't be read any more ({one_line(error)}); don't move"
        " or change a model's files while it is in use"
    )


class Skeleton:
    """A model as a proto without the data of its tensors, and the slots the data goes to.

    Parameters
    ----------
    model
        Not changed, and neither are its tensors.
    sparse
        Whether values that are marked so become sparse.

    Attributes
    ----------
    source
        How messages name the model.
    proto
        The proto; dense tensors are without data until their slot is filled or placed.
    slots
        The dense tensors of 1 KiB or more; smaller ones are filled already.
    size
        Bytes of the whole model, data included.

    Raises
    ------
    ModelError
        The graph is broken: not sorted, or an initializer has no data.
    """

    def __init__(self, model: ir.Model, *, sparse: bool = True) -> None:
        self.source = str(model.meta.get(SOURCE, "<onnx_ir.Model>"))
        self.proto, originals = _outline(model, self.source)
        self.slots: list[Slot] = []
        encoded: dict[str, onnx.SparseTensorProto] = {}
        for _, proto in tensors(self.proto):
            index = proto.external_data[0].value
            tensor, marked, external_allowed = originals[int(index)]
            if sparse and marked and (form := sparsify_tensor(tensor, proto.name)) is not None:
                encoded[index] = form
                continue
            proto.ClearField("data_location")
            proto.ClearField("external_data")
            slot = Slot(proto, tensor, external_allowed and tensor.dtype != ir.DataType.STRING)
            if slot.nbytes < _SMALL_BYTES:
                slot.fill()
            else:
                self.slots.append(slot)
        _put_sparse(self.proto, encoded)
        for scope in scopes(self.proto):
            if isinstance(scope, onnx.GraphProto):
                _declare_initializers(scope, listed=model.ir_version < FIRST_IR_WITH_OVERRIDABLE)
        for opset in self.proto.opset_import:
            if not opset.domain:
                opset.ClearField("domain")
        # The data's own field takes a tag and a length of 2 to 5 bytes.
        self.size: int = self.proto.ByteSize() + sum(slot.nbytes + 5 for slot in self.slots)

    def fill(self) -> onnx.ModelProto:
        """Write the data of all slots inline and return the proto."""
        for slot in self.slots:
            slot.fill()
        return self.proto


def _outline(
    model: ir.Model, source: str
) -> tuple[onnx.ModelProto, list[tuple[ir.TensorProtocol, bool, bool]]]:
    """Serialize a model with a numbered placeholder for each tensor.

    Returns the proto, whose tensors are external at the location "0", "1", ..., and for each
    number the tensor, whether it is marked sparse, and whether it may be external.
    """
    originals: list[tuple[ir.TensorProtocol, bool, bool]] = []

    def placeholder(tensor: ir.TensorProtocol, site: TensorSite) -> ir.TensorProtocol:
        marked = site.value is not None and (MARK in tensor.meta or MARK in site.value.meta)
        name = site.value.name if site.value is not None and site.node is None else tensor.name
        originals.append((tensor, marked, site.external_allowed))
        return ir.ExternalTensor(
            str(len(originals) - 1),
            None,
            None,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    for graph, _ in graphs(model):
        for value in graph.initializers.values():
            if value.const_value is None:
                raise ModelError(f"{source}: initializer {value.name!r} has no data")
    try:
        clone = model.clone()
        replace_tensors(clone, placeholder)
        return ir.to_proto(clone), originals
    except Exception as error:  # onnx_ir wraps whatever it meets in a broken graph
        raise ModelError(f"{source}: can't be written: {one_line(error)}") from error


def _strings(tensor: ir.TensorProtocol) -> list[bytes]:
    flat = tensor.numpy().reshape(-1).tolist()
    return [text if isinstance(text, bytes) else str(text).encode() for text in flat]


def _put_sparse(model: onnx.ModelProto, encoded: dict[str, onnx.SparseTensorProto]) -> None:
    """Replace the placeholders of sparse tensors, which are still external and numbered."""
    if not encoded:
        return
    for scope in scopes(model):
        if isinstance(scope, onnx.GraphProto):
            positions = [i for i, tensor in enumerate(scope.initializer) if tensor.external_data]
            for position in positions:
                index = scope.initializer[position].external_data[0].value
                scope.sparse_initializer.append(encoded[index])
            for position in reversed(positions):
                del scope.initializer[position]
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and attribute.t.external_data:
                    attribute.sparse_tensor.CopyFrom(encoded[attribute.t.external_data[0].value])
                    attribute.ClearField("t")
                    attribute.name = "sparse_value"
                    attribute.type = onnx.AttributeProto.SPARSE_TENSOR


def _declare_initializers(graph: onnx.GraphProto, *, listed: bool) -> None:
    """Drop what value_info only repeats about initializers; list them as inputs if asked to.

    Of sparse ones it goes whatever it says: it calls them dense, which onnx's inference rejects.
    """
    types = {tensor.name: _plain_type(tensor.name, tensor) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        tensor = TensorProto(data_type=sparse.values.data_type, dims=sparse.dims)
        types[sparse.values.name] = _plain_type(sparse.values.name, tensor)
    encoded = {sparse.values.name for sparse in graph.sparse_initializer}
    dropped: list[int] = []
    for position, info in enumerate(graph.value_info):
        known = types.get(info.name)
        if known is not None and (listed or info.name in encoded or info == known):
            known.CopyFrom(info)
            dropped.append(position)
    for position in reversed(dropped):
        del graph.value_info[position]
    if listed:
        inputs = {info.name for info in graph.input}
        graph.input.extend(info for name, info in types.items() if name not in inputs)


def _plain_type(name: str, tensor: TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
