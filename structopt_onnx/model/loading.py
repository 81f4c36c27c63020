"""Load a model from a file, bytes, a ModelProto or the IR, whole and on its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.external import DataFolder, check_mappable
from structopt_onnx.model.protos import (
    check_payload,
    check_structure,
    one_line,
    scopes,
    tensors,
)
from structopt_onnx.model.shadowing import rename_shadows
from structopt_onnx.model.sparse import MARK, densify_model
from structopt_onnx.model.tensors import (
    TensorSite,
    detached,
    detached_type,
    graphs,
    replace_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = str | Path | bytes | onnx.ModelProto | ir.Model

SOURCE = "structopt_onnx.source"
"""Key in `model.meta` of the name that messages use: the file, or what the model came as."""

OLDEST_OPSET = 7  # the oldest that onnxruntime guarantees
_OLDEST_IR = 3
FIRST_IR_WITH_OVERRIDABLE = 4  # before, initializers are listed as inputs and are constants
_PROTOBUF_LIMIT = 2**31 - 1
_INLINE_BYTES = 1024  # tensors below keep their encoding: variable-length integers may be shorter
_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the real file with `git lfs pull`",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a zip archive (a torch checkpoint or an npz?)",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"<": "text (the ONNX text format, or a web page saved by a download)",
}


def load(source: Source) -> ir.Model:
    """Load a model; the source is never changed by what is done to the result.

    External data is memory-mapped when first read and must lie in the folder of the model's
    file. Sparse tensors are made dense and carry the mark `sparse.MARK` in the `meta` of their
    value and tensor. In IR versions below 4, where every initializer is listed as an input yet
    constant, those entries are taken out of the inputs; `saving` puts them back.
    `model.meta[SOURCE]` names the source for messages; onnx_ir's `clone` does not copy it.

    Parameters
    ----------
    source
        A path, the bytes of a file, a ModelProto, an onnx_ir.Model, or an object whose `model`
        is one (as torch's ONNXProgram).

    Raises
    ------
    ModelError
        The model can't be read, is not valid, or is newer than the installed libraries.
    UsageError
        The source is none of the above.
    """
    if isinstance(source, ir.Model):
        return _adopt(source)
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)  # onnx_ir's values would alias the caller's
        return to_ir(proto, DataFolder("<ModelProto>", None))
    if isinstance(source, bytes):
        return to_ir(_parse(source, "<bytes>"), DataFolder("<bytes>", None))
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return to_ir(read_proto(path, str(source)), DataFolder(str(source), path.parent))
    inner = getattr(source, "model", None)
    if isinstance(inner, ir.Model):
        return _adopt(inner)
    raise UsageError(
        f"a model is a path, bytes, a ModelProto or an onnx_ir.Model, not {type(source).__name__}"
    )


def read_proto(path: Path, source: str) -> onnx.ModelProto:
    """Parse a file without a look at what it holds; errors as in `load`."""
    try:
        if path.is_dir():
            raise ModelError(f"{source}: is a folder; name the .onnx file in it")
        if path.exists() and not path.is_file():
            raise ModelError(f"{source}: is not a regular file")
        if path.stat().st_size > _PROTOBUF_LIMIT:
            raise ModelError(
                f"{source}: is larger than 2 GB, which no ONNX file can be; large weights belong"
                " into external data"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{source}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{source}: can't be read ({reason})") from error
    return _parse(data, source)


def _parse(data: bytes, source: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{source}: is empty; copy or export the model again")
    for start, kind in _KINDS.items():
        if data.startswith(start):
            raise ModelError(f"{source}: is not an ONNX model but {kind}")
    if data[4:8] == b"ORTM":
        raise ModelError(f"{source}: is in onnxruntime's own format; pass the .onnx it came from")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own, which it keeps under a private name
        # Every exporter writes the IR version, field 1, first.
        cause = "truncated or damaged" if data[0] == 0x08 else "not an ONNX model"  # noqa: PLR2004
        raise ModelError(f"{source}: is {cause}; copy or export it again") from error
    if not proto.ir_version and not proto.HasField("graph"):
        raise ModelError(f"{source}: is not an ONNX model; pass a file written by an exporter")
    return proto


def to_ir(proto: onnx.ModelProto, folder: DataFolder) -> ir.Model:
    """Turn an owned proto into the IR; the proto is used up. Errors as in `load`."""
    try:
        return _to_ir(proto, folder)
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{folder.source}: holds text that is not UTF-8; it is damaged, export it again"
        ) from error


def _to_ir(proto: onnx.ModelProto, folder: DataFolder) -> ir.Model:
    source = folder.source
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{source}: holds no graph; it is truncated or no model, export it again")
    if proto.training_info:
        raise ModelError(
            f"{source}: holds training information, which would be lost; export for inference"
        )
    _normalize_domains(proto, source)
    _check_versions(source, proto.ir_version, {o.domain: o.version for o in proto.opset_import})
    for function in proto.functions:
        opsets = {o.domain: o.version for o in function.opset_import}
        _check_opset(f"{source}: function {function.name!r}", opsets)
    for label, tensor in tensors(proto):
        check_payload(label, tensor, folder)
    densify_model(proto, folder)
    check_structure(proto, source)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # whatever a library raises on a file's content
        remedy = "; scikit-learn's exporters avoid maps with zipmap=False"
        text = one_line(error)
        raise ModelError(
            f"{source}: can't be represented: {text}{remedy if 'Map type' in text else ''}"
        ) from error

    replace_tensors(model, lambda tensor, site: _own(tensor, site, folder))
    rename_shadows(model)
    return _finish(model, source)


def _normalize_domains(proto: onnx.ModelProto, source: str) -> None:
    """Write the standard's domain as "" everywhere; refuse two versions of one domain."""
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        versions: dict[str, int] = {}
        for opset in imports:
            domain = "" if opset.domain == "ai.onnx" else opset.domain
            if versions.setdefault(domain, opset.version) != opset.version:
                raise ModelError(
                    f"{source}: imports two versions of domain {domain or 'ai.onnx'!r}; keep one"
                )
        del imports[:]
        for domain, version in versions.items():
            imports.add(domain=domain, version=version)
    for scope in scopes(proto):
        for node in scope.node:
            if node.domain == "ai.onnx":
                node.domain = ""


def _check_versions(source: str, ir_version: int, opsets: Mapping[str, int]) -> None:
    if not _OLDEST_IR <= ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{source}: IR version {ir_version} is not supported; the installed onnx"
            f" {onnx.__version__} reads {_OLDEST_IR} to {onnx.IR_VERSION}, update onnx or export"
            " for one of these"
        )
    if not opsets:
        raise ModelError(
            f"{source}: imports no opset; the file is truncated or no model, export it again"
        )
    _check_opset(source, opsets)


def _check_opset(where: str, opsets: Mapping[str, int]) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("", newest)
    if not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"{where}: opset {version} is not supported, {OLDEST_OPSET} to {newest} are; convert"
            " it with onnx.version_converter, or export it again"
        )


def _own(tensor: ir.TensorProtocol, site: TensorSite, folder: DataFolder) -> ir.TensorProtocol:
    """Take a tensor out of the parsed proto, so that the proto's memory can be freed.

    Large raw data becomes a read-only array, which every later `numpy()` shares; a proto would
    be copied each time.
    """
    marked = tensor.metadata_props.pop(MARK, None) is not None
    owned = tensor
    if isinstance(tensor, ir.ExternalTensor) and folder.path is not None:
        tensor.base_dir = str(folder.path)
    elif isinstance(tensor, ir.StringTensor):
        owned = ir.StringTensor(
            list(tensor.string_data()),
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    elif isinstance(tensor, ir.serde.TensorProtoTensor):
        raw = tensor.raw
        if raw.HasField("raw_data") and tensor.nbytes >= _INLINE_BYTES:
            array = tensor.numpy()
            array.flags.writeable = False
            owned = ir.Tensor(
                array,
                dtype=tensor.dtype,
                shape=tensor.shape,
                name=raw.name,
                doc_string=raw.doc_string or None,
                metadata_props=dict(tensor.metadata_props),
            )
        else:
            small = onnx.TensorProto()
            small.CopyFrom(raw)
            for entry in [entry for entry in small.metadata_props if entry.key == MARK]:
                small.metadata_props.remove(entry)
            owned = ir.serde.TensorProtoTensor(small)
    if marked:
        owned.meta[MARK] = True
        if site.value is not None:
            site.value.meta[MARK] = True
    return owned


def _adopt(original: ir.Model) -> ir.Model:
    """Return a copy of a caller's model that shares nothing but the data of its tensors."""
    source = str(original.meta.get(SOURCE, "<onnx_ir.Model>"))
    _check_versions(source, original.ir_version, original.opset_imports)
    try:
        model = original.clone()
    except Exception as error:  # onnx_ir wraps whatever it meets in a broken graph
        raise ModelError(
            f"{source}: can't be copied: {one_line(error)}; its nodes must be in topological order"
        ) from error
    model.meta.update(original.meta)

    def shell(tensor: ir.TensorProtocol, _: TensorSite) -> ir.TensorProtocol:
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is None:
            check_mappable(tensor, source)
        return detached(tensor)

    replace_tensors(model, shell)
    for graph, _ in graphs(model):
        for value in (*graph.inputs, *graph.initializers.values()):
            value.type = detached_type(value.type)
        for node in graph:
            for output in node.outputs:
                output.type = detached_type(output.type)
                if output.const_value is not None:
                    output.const_value = detached(output.const_value)
    return _finish(model, source)


def _finish(model: ir.Model, source: str) -> ir.Model:
    model.meta[SOURCE] = source
    if model.ir_version < FIRST_IR_WITH_OVERRIDABLE:
        for value in [value for value in model.graph.inputs if value.is_initializer()]:
            model.graph.inputs.remove(value)
    return model
