"""A model in memory as something onnxruntime can open, its weights shared and not copied."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import onnx
import onnxruntime as ort

from structopt_onnx.model.saving import save
from structopt_onnx.model.shared_weights import SHARED_TYPES, to_proto_and_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

# Protocol buffers end at 2 GiB; far below that, a file spares two copies of the weights.
_LARGE_BYTES = 1 << 30
# Smaller weights travel in the model: onnxruntime looks at some of them, such as shapes.
_SHARED_BYTES = 1 << 14

Weights: TypeAlias = dict[str, ort.OrtValue]
"""Data of external initializers by name, on the arrays of the model itself."""


@contextmanager
def serialized(
    model: ir.Model, edit: Callable[[onnx.ModelProto], None]
) -> Iterator[tuple[Path | bytes, Weights]]:
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
        The serialized model. Where what can't be shared is large, a file that is gone after.
    dict
        The large weights, to be kept as long as a session that uses them.
    """
    if _inline_bytes(model) < _LARGE_BYTES:
        proto, arrays = to_proto_and_arrays(model, _SHARED_BYTES)
        edit(proto)
        shared = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        yield proto.SerializeToString(), shared
        return
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external_data=True)
        proto = onnx.load(path, load_external_data=False)
        edit(proto)
        path.write_bytes(proto.SerializeToString())
        yield path, {}


def _inline_bytes(model: ir.Model) -> int:
    """Sum up the bytes of the initializers that can't be shared: of subgraphs, of odd types."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype.name != "STRING"
        and (graph is not model.graph or value.const_value.dtype not in SHARED_TYPES)
    )
