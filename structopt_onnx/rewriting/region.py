"""The region that a patch touches, before and after, as stand-alone models to be timed.

A region keeps operators, attributes, shapes and types, and forgets names and the numbers in its
weights: two layers of the same shape are the same region, so it need be timed only once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from structopt_onnx.model.edit import Fresh
from structopt_onnx.model.inference import node_proto

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope

_WEIGHT_TYPES = {ir.DataType.FLOAT16: 2, ir.DataType.FLOAT: 4, ir.DataType.DOUBLE: 8}
# Integer constants are shapes, axes and indices: their values decide what is computed.
_MOST_KEPT = 1024
_SEQUENCE_LENGTHS = 4
_RECURRENT = {"RNN", "GRU", "LSTM"}


@dataclass(frozen=True)
class RegionInput:
    """An activation that a region reads.

    Parameters
    ----------
    name, dtype, shape
        What to feed.
    low, high
        Bounds of integers, both included: indices stay inside their table.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class RegionWeight:
    """A constant of floating-point numbers, of which only type and shape are known."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        count = 1
        for size in self.shape:
            count *= size
        return count * _WEIGHT_TYPES[self.dtype]


@dataclass(frozen=True)
class Region:
    """Nodes with everything that decides how long they run, and nothing else.

    Parameters
    ----------
    inputs, weights
        What they read.
    graph
        The nodes and the integer constants, without inputs and weights.
    opset, ir_version
        Of the model they come from.
    """

    inputs: tuple[RegionInput, ...]
    weights: tuple[RegionWeight, ...]
    graph: onnx.GraphProto = field(repr=False)
    opset: int
    ir_version: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(weight.nbytes for weight in self.weights)

    def signature(self) -> str:
        """Return one line that is equal for regions that take equally long."""
        sources = {i.name: _text("in", i.dtype, i.shape) for i in self.inputs}
        sources |= {w.name: _text("w", w.dtype, w.shape) for w in self.weights}
        sources |= {
            t.name: f"{onnx.numpy_helper.to_array(t).tolist()}" for t in self.graph.initializer
        }
        # Which operands are one and the same matters too: a weight read twice is read once.
        order = {name: number for number, name in enumerate(sources)}
        lines = []
        for node in self.graph.node:
            operands = [f"{n}:{sources[n]}" if n in order else n or "-" for n in node.input]
            attributes = [
                f"{a.name}={onnx.helper.get_attribute_value(a)}"
                for a in sorted(node.attribute, key=lambda a: a.name)
            ]
            lines.append(f"{' '.join((node.op_type, *attributes))}({', '.join(operands)})")
        return f"{'; '.join(lines)} [opset {self.opset}]"


def _text(kind: str, dtype: ir.DataType, shape: Sequence[int]) -> str:
    return f"{kind} {dtype.name.lower()}[{','.join(map(str, shape))}]"


def regions(patch: Patch, facts: Facts) -> tuple[Region | None, Region | None]:
    """Return what a patch takes out and what it puts in.

    None for a side that can't stand alone: it holds subgraphs, operators of other domains, types
    that are not timed, or values whose shape nobody knows. Edits of several scopes give neither.
    """
    if len(patch.edits) != 1:
        return None, None
    (scope, edit), *_ = patch.edits.items()
    order = {node: number for number, node in enumerate(scope.graph)}
    # What integers an activation may hold is told by the operators that read it now.
    bounds: dict[ir.Value, tuple[int, int]] = {}
    before, after = _Builder(scope, facts, bounds), _Builder(scope, facts, bounds)
    for node in sorted(edit.remove, key=lambda node: order.get(node, 0)):
        attributes = tuple(node.attributes.values())
        before.add(node.op_type, node.domain, node.inputs, node.outputs, attributes)
    for old in edit.rewire:
        after.likely(old.dtype)
    for new in edit.add:
        after.add(new.op_type, new.domain, new.inputs, new.outputs, new.attrs())
    return before.region(edit.rewire), after.region(edit.rewire.values())


class _Builder:
    """Gathers nodes under canonical names; `failed` once something can't stand alone."""

    def __init__(self, scope: Scope, facts: Facts, bounds: dict[ir.Value, tuple[int, int]]) -> None:
        self.facts = facts
        self.bounds = bounds
        self.opset = facts.opset(scope) or 0
        self.failed = not self.opset
        self.graph = onnx.GraphProto(name="region")
        self._names: dict[ir.Value | Fresh, str] = {}
        self._made: dict[ir.Value | Fresh, str] = {}
        self._inputs: dict[str, ir.Value] = {}
        self._weights: list[RegionWeight] = []
        self._dtype: ir.DataType | None = None

    def likely(self, dtype: ir.DataType | None) -> None:
        """Note the type that activations without a declared one probably have."""
        if self._dtype is None and dtype in _WEIGHT_TYPES:
            self._dtype = dtype

    def add(
        self,
        op_type: str,
        domain: str,
        inputs: Sequence[Operand],
        outputs: Sequence[ir.Value | Fresh],
        attributes: Sequence[ir.Attr],
    ) -> None:
        """Add a node."""
        self.failed |= bool(domain) or any(
            a.is_ref() or a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
            for a in attributes
        )
        if self.failed:
            return
        self._note_bounds(op_type, inputs, attributes)
        names = [self._name(operand) for operand in inputs]
        for output in outputs:
            self._made[output] = self._names[output] = f"v{len(self._made)}"
        made = ["" if o.name == "" else self._made[o] for o in outputs]
        self.graph.node.append(node_proto(op_type, domain, names, made, attributes))

    def region(self, handed_on: Iterable[ir.Value | Fresh]) -> Region | None:
        """Return the region; what it hands on is its output."""
        outputs = [self._made[value] for value in handed_on if value in self._made]
        inputs = [self._input(name, value) for name, value in self._inputs.items()]
        known = [i for i in inputs if i is not None]
        if self.failed or not outputs or len(known) != len(inputs):
            return None
        for name in dict.fromkeys(outputs):
            self.graph.output.add().name = name
        version = max(self.facts.model.ir_version or 4, 4)
        return Region(tuple(known), tuple(self._weights), self.graph, self.opset, version)

    def _name(self, operand: Operand) -> str:
        if operand is None or operand in self._names:
            return "" if operand is None else self._names[operand]
        tensor = operand.tensor if isinstance(operand, Fresh) else self.facts.tensor(operand)
        name = f"{'i' if tensor is None else 'c'}{len(self._names)}"
        self._names[operand] = name
        if tensor is not None:
            self._constant(name, tensor)
        elif isinstance(operand, ir.Value):
            self.likely(operand.dtype)
            self._inputs[name] = operand
        else:
            self.failed = True
        return name

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> None:
        if tensor.dtype in _WEIGHT_TYPES:
            self.likely(tensor.dtype)
            shape = tuple(int(d) for d in tensor.shape.numpy())
            self._weights.append(RegionWeight(name, tensor.dtype, shape))
        elif tensor.dtype.is_integer() and tensor.size <= _MOST_KEPT:
            self.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
        else:
            self.failed = True

    def _note_bounds(
        self, op_type: str, inputs: Sequence[Operand], attributes: Sequence[ir.Attr]
    ) -> None:
        """Note which integers an operand may hold: any row of a table, full lengths."""
        first = inputs[0] if inputs else None
        dims = self.facts.concrete(first) if isinstance(first, ir.Value) else None
        if not dims:
            return
        if op_type == "Gather" and isinstance(inputs[1], ir.Value):
            axis = next((a.as_int() for a in attributes if a.name == "axis"), 0)
            self.bounds.setdefault(inputs[1], (0, max(0, dims[axis] - 1)))
        if op_type in _RECURRENT and len(inputs) > _SEQUENCE_LENGTHS:
            lengths = inputs[_SEQUENCE_LENGTHS]
            if isinstance(lengths, ir.Value):
                self.bounds.setdefault(lengths, (dims[0], dims[0]))

    def _input(self, name: str, value: ir.Value) -> RegionInput | None:
        shape, dtype = self.facts.concrete(value), value.dtype or self._dtype
        timed = dtype is not None and (dtype in _WEIGHT_TYPES or dtype.is_integer())
        if shape is None or dtype is None or not timed:
            return None
        return RegionInput(name, dtype, shape, *self.bounds.get(value, (0, 0)))
