"""Types and shapes that a file does not state, inferred node by node when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.inference import infer_outputs, node_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from structopt_onnx.model.scope import Scope


_NOTHING = ir.TypeAndShape(None, None)


# How onnx's inference names a dimension that it knew nothing about; it may be known by now.
_UNKNOWN = "unk__"


def is_stated(shape: ir.Shape | None) -> bool:
    """Whether a shape says of each dimension what it is, or how it is called."""
    return shape is not None and all(
        isinstance(d, int) or (d.value is not None and not d.value.startswith(_UNKNOWN))
        for d in shape.dims
    )


class Inferred:
    """What the operators' own inference functions say about values; remembers the answers.

    Parameters
    ----------
    scopes
        Every scope of the model.
    tensor
        Gives the constant behind a value, or None.
    """

    def __init__(
        self,
        scopes: Iterable[Scope],
        tensor: Callable[[ir.Value | None], ir.TensorProtocol | None],
    ) -> None:
        self._opsets: dict[ir.Graph, Mapping[str, int]] = {
            scope.graph: scope.outermost.graph.opset_imports for scope in scopes
        }
        self._tensor = tensor
        self._known: dict[ir.Value, ir.TypeAndShape] = {}

    def of(self, value: ir.Value) -> ir.TypeAndShape:
        """Return type and shape of a value as declared, else as inferred; either may be None."""
        waiting = [value]
        while waiting:
            last = waiting[-1]
            if last in self._known:
                waiting.pop()
                continue
            producer = self._undeclared(last)
            if producer is None:
                self._known[last] = ir.TypeAndShape(last.type, last.shape)
                continue
            missing = [i for i in producer.inputs if i is not None and i not in self._known]
            if missing:
                waiting += missing
            else:
                self._infer(producer)
        return self._known[value]

    def _undeclared(self, value: ir.Value) -> ir.Node | None:
        """Return the node to infer a value by, None where nothing is missing or can be done."""
        node = value.producer()
        if node is None or (value.type is not None and is_stated(value.shape)):
            return None
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return None
        return node if isinstance(node.graph, ir.Graph) and node.graph in self._opsets else None

    def _infer(self, node: ir.Node) -> None:
        types: dict[str, ir.TypeAndShape] = {}
        constants: dict[str, ir.TensorProtocol] = {}
        for index, operand in enumerate(node.inputs):
            if operand is None:
                continue
            known, tensor = self._known[operand], self._tensor(operand)
            if tensor is not None:
                constants[f"in{index}"] = tensor
                shape = ir.Shape(tensor.shape.numpy())
                known = ir.TypeAndShape(ir.TensorType(tensor.dtype), shape)
            if known.type is not None:
                types[f"in{index}"] = known
        proto = node_proto(
            node.op_type,
            node.domain,
            ["" if operand is None else f"in{k}" for k, operand in enumerate(node.inputs)],
            [f"out{k}" for k in range(len(node.outputs))],
            list(node.attributes.values()),
        )
        graph = node.graph
        opsets = self._opsets[graph] if isinstance(graph, ir.Graph) else {}
        found = infer_outputs(proto, types, constants, opsets)
        for index, output in enumerate(node.outputs):
            inferred = found.get(f"out{index}", _NOTHING)
            keeps = is_stated(output.shape) or inferred.shape is None
            self._known[output] = ir.TypeAndShape(
                inferred.type if output.type is None else output.type,
                output.shape if keeps else inferred.shape,
            )
