"""Read-only questions about a model, answered once and remembered for a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.workers import Workers
from structopt_onnx.model.inferred import Inferred, is_stated
from structopt_onnx.model.scope import Scope, scopes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.statistic import Statistic

Dims = tuple[int | None, ...]
Shape = tuple[int | str | None, ...]

# ConstantOfShape makes weights without storing them; larger ones are not expanded to look at.
_LARGEST_EXPANDED = 2**28


class Facts:
    """What passes may ask about a model; valid until the model is next changed.

    Parameters
    ----------
    model
        The model; never changed through this class.
    shapes
        Concrete shapes by value name, as observed in a run. They make symbolic dimensions
        countable; legality must never rest on them.
    statistics
        Activation statistics gathered by calibration.
    workers
        Who does the linear algebra.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        statistics: Mapping[Statistic, Moments] | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.model = model
        self.shapes = shapes or {}
        self.statistics = {} if statistics is None else statistics
        self.workers = workers or Workers()
        self.scopes: tuple[Scope, ...] = scopes(model)
        self._inferred = Inferred(self.scopes, self.tensor)

    def statistic(self, wanted: Statistic) -> Moments | None:
        """Moments of an activation, or None when calibration did not gather them."""
        return self.statistics.get(wanted)

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """Return the constant behind a value, or None when it may change from run to run.

        An initializer that is also a graph input can be overridden by the caller and is not a
        constant (ONNX IR specification, "Graphs"). A `ConstantOfShape` with a constant shape is.
        """
        if value is None or value.is_graph_input():
            return None
        node = value.producer()
        if node is None:
            return value.const_value if value.is_initializer() else None
        if node.domain == "" and node.op_type == "Constant":
            held = node.attributes.get("value")
            if held is not None and not held.is_ref():
                return held.as_tensor()  # the library's reader would rename it
            return ir.convenience.get_const_tensor(value)
        if node.domain == "" and node.op_type == "ConstantOfShape":
            return self._expanded(node)
        return None

    def _expanded(self, node: ir.Node) -> ir.TensorProtocol | None:
        shape = self.tensor(node.inputs[0])
        if shape is None:
            return None
        dims = tuple(int(d) for d in shape.numpy())
        fill = node.attributes.get("value")
        element = fill.as_tensor().numpy() if fill is not None else np.zeros(1, np.float32)
        if any(d < 0 for d in dims) or int(np.prod(dims, dtype=np.float64)) > _LARGEST_EXPANDED:
            return None
        return ir.tensor(np.broadcast_to(element.reshape(()), dims))

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the constant behind a value as an array, or None."""
        tensor = self.tensor(value)
        return None if tensor is None else tensor.numpy()

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Return the shape as declared, else as inferred; symbols by name, None where unknown."""
        if value is None:
            return None
        tensor = self.tensor(value)
        if tensor is not None:
            return tuple(int(d) for d in tensor.shape.numpy())
        shape = value.shape if is_stated(value.shape) else self._inferred.of(value).shape
        if shape is None:
            return None
        return tuple(d if isinstance(d, int) else d.value for d in shape.dims)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the element type as declared, else as inferred; None when unknown."""
        if value.dtype is not None:
            return value.dtype
        known = self._inferred.of(value).type
        return None if known is None else known.dtype

    def dims(self, value: ir.Value | None) -> Dims | None:
        """Return the shape, None per symbolic dimension; None when the rank is unknown."""
        shape = self.shape(value)
        return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)

    def rank(self, value: ir.Value | None) -> int | None:
        """Return the number of dimensions of a value, or None when unknown."""
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def concrete(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Shape to count with: observed in a run, else declared with symbolic dimensions as 1."""
        if value is None:
            return None
        if value.name is not None and value.name in self.shapes:
            return self.shapes[value.name]
        dims = self.dims(value)
        return None if dims is None else tuple(1 if d is None else d for d in dims)

    def opset(self, scope: Scope, domain: str = "") -> int | None:
        """Version of an operator domain in force in a scope."""
        if domain in scope.graph.opset_imports:
            return scope.graph.opset_imports[domain]
        return self.model.opset_imports.get(domain)
