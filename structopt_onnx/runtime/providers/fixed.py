"""A copy of a model as mobile and plugin providers want it: every dimension is a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.shape_inference
import onnx.version_converter

from structopt_onnx.model.protos import one_line
from structopt_onnx.model.saving import save
from structopt_onnx.runtime.providers.status import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt
    import onnx_ir as ir


def fixed_copy(model: ir.Model, feed: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write a copy of a model with its inputs at the shapes of a feed.

    Parameters
    ----------
    model
        Not changed.
    feed
        An array per input.
    path
        Where to; weights go to a file beside it where one can't hold all.

    Raises
    ------
    Unavailable
        When the shapes do not fit.
    """
    # A package for tools has no place in the import of a session.
    from onnxruntime.tools import onnx_model_utils as tools  # noqa: PLC0415

    save(model, path)
    proto = onnx.load(path, load_external_data=False)
    try:
        for name, array in feed.items():
            tools.make_input_shape_fixed(proto.graph, name, list(array.shape))
        # What the file says of values inside may be of the open dimensions.
        del proto.graph.value_info[:]
        # Not the tool for it: that one asks for all data in one message.
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        for output, known in zip(proto.graph.output, inferred.output, strict=True):
            if tools.is_fixed_size_tensor(known) and not tools.is_fixed_size_tensor(output):
                output.CopyFrom(known)
    except Exception as error:
        raise Unavailable(f"its shapes can't be fixed: {one_line(error)}") from error
    path.write_bytes(proto.SerializeToString())


def data_files(path: Path) -> list[Path]:
    """List the files beside a fixed copy that hold its weights; none where it does itself."""
    return list(path.parent.glob(f"{path.stem}.*.data"))


def lowered(proto: onnx.ModelProto, opset: int, ir_version: int) -> onnx.ModelProto:
    """Bring a model to an older opset and file format, where that can be done.

    Parameters
    ----------
    proto
        May be changed.
    opset, ir_version
        The newest that the reader knows.

    Raises
    ------
    Unavailable
        When onnx has no way down for an operator.
    """
    own = next((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), opset)
    if own > opset:
        try:
            proto = onnx.version_converter.convert_version(proto, opset)
        except Exception as error:
            raise Unavailable(
                f"opset {own}, {opset} is the newest there: {one_line(error)}"
            ) from error
    proto.ir_version = min(proto.ir_version, ir_version)
    return proto


def alike(feeds: Sequence[Mapping[str, npt.NDArray[Any]]], most: int) -> list[Any]:
    """Return the first feeds that have the shapes of the very first."""
    shapes = {name: array.shape for name, array in feeds[0].items()}
    return [f for f in feeds if {name: array.shape for name, array in f.items()} == shapes][:most]
