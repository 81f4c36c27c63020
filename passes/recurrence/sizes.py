"""Sizes known for every run: dimensions and small integer tensors, symbols included.

Exporters compute sizes in the graph (`Shape` -> `Gather` -> `Concat` -> `Expand`) and often
leave out the shapes of what they compute. One walk over a graph in order tells which dimensions
are equal in every run: a dimension is a number, the name of an input's free dimension (ONNX IR
specification, "Static tensor shapes": equal names are equal sizes), or an object of its own.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.recurrence.dims import Dim, Dims, Unknown
from structopt_onnx.passes.recurrence.size_rules import output_dims

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

_LARGEST = 4096  # elements of a tensor that is looked into
_ARITHMETIC = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.floordiv,
}
Contents = tuple[Dim, ...]


class Sizes:
    """Dimensions of the values of one graph, and contents of its small integer tensors.

    Parameters
    ----------
    graph
        Walked once, in order.
    facts
        Knows the constants.
    """

    def __init__(self, graph: ir.Graph, facts: Facts) -> None:
        self._facts = facts
        self._opset = int(graph.opset_imports.get("", facts.model.opset_imports.get("", 0)))
        self._dims: dict[ir.Value, Dims | None] = {}
        self._contents: dict[ir.Value, Contents | None] = {}
        self._parts: dict[ir.Node, Dim | None] = {}
        for node in graph:
            self._visit(node)

    @property
    def opset(self) -> int:
        """Version of the default operator domain."""
        return self._opset

    def dims(self, value: ir.Value | None) -> Dims | None:
        """Return the dimensions of a value, or None when not even its rank is known."""
        if value is None:
            return None
        if value not in self._dims:
            self._dims[value] = self._declared(value)
        return self._dims[value]

    def contents(self, value: ir.Value | None) -> Contents | None:
        """Return the elements of a small integer tensor, flat; None when unknown."""
        if value is None:
            return None
        if value not in self._contents:
            array = self._facts.array(value) if _is_small(self._facts, value) else None
            known = array is not None and array.dtype.kind in "iub"
            self._contents[value] = (
                tuple(int(x) for x in array.reshape(-1)) if array is not None and known else None
            )
        return self._contents[value]

    def part(self, split: ir.Node) -> Dim | None:
        """Return the size that all outputs of a Split have along its axis, if they have one."""
        if split not in self._parts:
            axis = _integer(split, "axis", 0) or 0
            dims = [self.dims(output) for output in split.outputs]
            found = {shape[axis] if shape else None for shape in dims}
            self._parts[split] = found.pop() if len(found) == 1 else None
        return self._parts[split]

    def _declared(self, value: ir.Value) -> Dims | None:
        if value.shape is None and self._facts.tensor(value) is None:
            return None  # inference by the operators' own functions is slow, and the rules know
        dims = self._facts.dims(value)
        if dims is None or value.shape is None:
            return dims if dims is None else tuple(Unknown() if d is None else d for d in dims)
        named = value.is_graph_input()
        return tuple(
            known
            if known is not None
            else (symbol.value if named and not isinstance(symbol, int) else None) or Unknown()
            for known, symbol in zip(dims, value.shape.dims, strict=True)
        )

    def _visit(self, node: ir.Node) -> None:
        contents = self._result_contents(node) if node.domain == "" else None
        dims = self._result_dims(node) if node.domain == "" else None
        for index, output in enumerate(node.outputs):
            declared = self._declared(output)
            found = dims[index] if dims is not None and index < len(dims) else None
            if found is None:
                self._dims[output] = declared
            elif declared is not None and len(declared) == len(found):
                self._dims[output] = tuple(
                    d if isinstance(d, int) else f for f, d in zip(found, declared, strict=True)
                )
            else:
                self._dims[output] = found
        if contents is not None:
            self._contents[node.outputs[0]] = contents

    def _result_dims(self, node: ir.Node) -> list[Dims | None] | None:
        inputs = [self.dims(value) for value in node.inputs]
        contents = [self.contents(value) for value in node.inputs]
        return output_dims(node, inputs, contents)

    def _result_contents(self, node: ir.Node) -> Contents | None:
        values = [self.contents(value) for value in node.inputs]
        first = values[0] if values else None
        match node.op_type:
            case "Shape":
                dims = self.dims(node.inputs[0])
                start, end = _integer(node, "start", 0), _integer(node, "end", None)
                return None if dims is None else dims[start:end]
            case "Identity" | "Cast" | "Unsqueeze" | "Squeeze" | "Reshape":
                return first
            case "Concat":
                return None if None in values else sum((v for v in values if v), ())
            case "Gather":
                return _gathered(first, values[1])
            case "ConstantOfShape":
                return self._filled(node, first)
            case "Where" if None not in values:
                return _chosen(*(v for v in values if v is not None))
            case "Equal" | "Add" | "Sub" | "Mul" | "Div" if None not in values:
                return _computed(node.op_type, *(v for v in values if v is not None))
        return None

    def _filled(self, node: ir.Node, shape: Contents | None) -> Contents | None:
        if shape is None or len(shape) != 1 or not isinstance(shape[0], int):
            return None
        fill = node.attributes.get("value")
        element = fill.as_tensor().numpy().reshape(-1)[0] if fill is not None else np.float32(0)
        if element.dtype.kind not in "iu" or shape[0] > _LARGEST:
            return None
        return (int(element),) * shape[0]


def _is_small(facts: Facts, value: ir.Value) -> bool:
    tensor = facts.tensor(value)
    return tensor is not None and tensor.size <= _LARGEST


def _integer(node: ir.Node, name: str, default: int | None) -> int | None:
    return node.attributes[name].as_int() if name in node.attributes else default


def _gathered(data: Contents | None, indices: Contents | None) -> Contents | None:
    if data is None or indices is None or not all(isinstance(i, int) for i in indices):
        return None
    positions = [int(i) for i in indices if isinstance(i, int)]
    if any(not -len(data) <= i < len(data) for i in positions):
        return None
    return tuple(data[i] for i in positions)


def _paired(one: Contents, other: Contents) -> list[tuple[Dim, Dim]]:
    size = max(len(one), len(other))
    one = one * size if len(one) == 1 else one
    other = other * size if len(other) == 1 else other
    return list(zip(one, other, strict=False))


def _chosen(condition: Contents, yes: Contents, no: Contents) -> Contents | None:
    size = max(len(condition), len(yes), len(no))
    spread = [v * size if len(v) == 1 else v for v in (condition, yes, no)]
    if any(len(v) != size for v in spread):
        return None
    return tuple(
        (y if c else n) if isinstance(c, int) else Unknown()
        for c, y, n in zip(*spread, strict=True)
    )


def _computed(op_type: str, one: Contents, other: Contents) -> Contents:
    return tuple(_element(op_type, a, b) for a, b in _paired(one, other))


def _element(op_type: str, a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        if op_type == "Equal":
            return int(a == b)
        if op_type == "Div" and (b == 0 or a < 0 or b < 0):  # ONNX rounds towards zero
            return Unknown()
        return int(_ARITHMETIC[op_type](a, b))
    if op_type == "Equal":  # a size is never negative
        number = a if isinstance(a, int) else b
        return 0 if isinstance(number, int) and number < 0 else Unknown()
    if op_type in {"Mul", "Div"} and b == 1:
        return a
    if op_type in {"Add", "Sub"} and b == 0:
        return a
    return Unknown()
