"""How many bytes a model takes on disk, its external data included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def model_file_bytes(path: Path) -> int:
    """Return the size of a model file and of the external data files it names.

    Parameters
    ----------
    path
        A model file that can be read.
    """
    proto = onnx.load(path, load_external_data=False)
    locations = {
        ExternalDataInfo(tensor).location
        for tensor in _tensors(proto)
        if uses_external_data(tensor)
    }
    files = [path, *(path.parent / location for location in sorted(locations))]
    return sum(file.stat().st_size for file in files if file.is_file())


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t
        for body in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(body)
