"""onnxscript's constant folding, kept from what it gets wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir
import onnx_ir.passes.common as onnx_ir_passes
import onnxscript.optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def is_random(node: ir.Node) -> bool:
    """Whether two runs of a node may differ; operators of other domains are not known."""
    return node.domain != "" or node.op_type in _RANDOM


@contextmanager
def hidden_defaults(model: ir.Model) -> Iterator[None]:
    """Keep the library from taking the defaults of inputs for constants."""
    defaults = {value: value.const_value for value in model.graph.inputs if value.const_value}
    for value in defaults:
        value.const_value = None
    try:
        yield
    finally:
        for value, default in defaults.items():
            value.const_value = default


@contextmanager
def inferred_shapes(model: ir.Model) -> Iterator[None]:
    """Show the library shapes that the file does not state, and leave them unstated after."""
    unstated = [
        (value, value.type, value.shape)
        for graph in model.graphs()
        for node in graph
        for value in node.outputs
        if value.type is None or value.shape is None
    ]
    onnx_ir_passes.ShapeInferencePass()(model)
    try:
        yield
    finally:
        for value, kind, shape in unstated:
            if not value.is_graph_output():
                value.type, value.shape = kind, shape


def fold(model: ir.Model, should_fold: Callable[[ir.Node], bool | None] | None = None) -> None:
    """Fold constants and drop what nothing reads afterwards, in place.

    The library takes the defaults of inputs for constants when it inlines an `If`, drops an
    `Expand` or infers a shape; they are hidden from it. It evaluates random operators on
    constants; they are kept from it.

    Parameters
    ----------
    model
        Edited in place.
    should_fold
        Whether a node is to be evaluated; None leaves it to the library's limits.

    Raises
    ------
    NotImplementedError
        Where the library would drop the `saturate` attribute of a `CastLike`.
    """
    for graph in model.graphs():
        for node in graph:
            if node.domain == "" and node.op_type == "CastLike" and "saturate" in node.attributes:
                raise NotImplementedError(f"CastLike '{node.name}' would lose its saturate")
    with hidden_defaults(model), inferred_shapes(model):
        onnxscript.optimizer.fold_constants_ir(
            model,
            should_fold=lambda node: (
                False if is_random(node) else None if should_fold is None else should_fold(node)
            ),
        )
    onnx_ir_passes.RemoveUnusedNodesPass()(model)
