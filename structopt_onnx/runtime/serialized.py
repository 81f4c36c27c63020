"""A model in memory as something onnxruntime can open: bytes, or a file where bytes end."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from structopt_onnx.model.saving import save, to_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Protocol buffers end at 2 GiB; far below that, a file spares two copies of the weights.
_LARGE_BYTES = 1 << 30


@contextmanager
def serialized(model: ir.Model, edit: Callable[[onnx.ModelProto], None]) -> Iterator[Path | bytes]:
    """Give a model to onnxruntime.

    Parameters
    ----------
    model
        The model; it is not changed.
    edit
        Changes the protocol buffer on its way, never its weights.

    Yields
    ------
    bytes or Path
        The serialized model, or for a large one a file with external data that is gone after.
    """
    if _weight_bytes(model) < _LARGE_BYTES:
        proto = to_proto(model)
        edit(proto)
        yield proto.SerializeToString()
        return
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external_data=True)
        proto = onnx.load(path, load_external_data=False)
        edit(proto)
        path.write_bytes(proto.SerializeToString())
        yield path


def _weight_bytes(model: ir.Model) -> int:
    """Sum up the bytes of the initializers; quick, where an exact size would cost a copy."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING
    )
