"""Which values a graph input may take, read from what the graph does with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

# Operators whose outputs hold elements of these inputs, moved but not changed in value.
_MOVERS: dict[str, frozenset[int]] = dict.fromkeys(
    [
        "Cast",
        "CastLike",
        "Compress",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ],
    frozenset({0}),
) | {"Concat": frozenset(range(1000)), "Where": frozenset({1, 2})}

# Inputs that hold a number of elements, an axis or a shape: small positive numbers are legal.
_COUNTS: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "CumSum": frozenset({1}),
    "Expand": frozenset({1}),
    "GRU": frozenset({4}),
    "LSTM": frozenset({4}),
    "Loop": frozenset({0}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1}),
    "RNN": frozenset({4}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
}

# Position of the indices, position of the table they point into.
_INDEXERS: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {
    ("", "Gather"): ((1, 0),),
    ("", "GatherElements"): ((1, 0),),
    ("", "GatherND"): ((1, 0),),
    ("", "ScatterElements"): ((1, 0),),
    ("", "ScatterND"): ((1, 0),),
    ("com.microsoft", "EmbedLayerNormalization"): ((0, 2), (1, 4)),
}

_COMPARISONS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_POSITIVE = frozenset({"Log", "Sqrt"})
_SMALL = 16
_MAX_STEPS = 10_000


@dataclass(frozen=True)
class Domain:
    """Values that are legal and telling for one input.

    Parameters
    ----------
    low, high
        Integers lie in [low, high); `high` is None where no table bounds them.
    dims
        Symbolic dimensions that bound them, too: the values index an axis of that size.
    compared
        Constants they are compared with, and for an order their neighbours: values at which the
        graph decides.
    index
        They index something of unknown size.
    count
        They are a length, an axis or a shape.
    positive
        A logarithm or square root reads them.
    """

    low: int = 0
    high: int | None = None
    dims: frozenset[str] = frozenset()
    compared: tuple[int | str, ...] = ()
    index: bool = False
    count: bool = False
    positive: bool = False


@dataclass(frozen=True)
class _Seen:
    """A value that holds scale * x + offset of the input's elements x, for some known offsets."""

    value: ir.Value
    scale: int = 1
    offsets: tuple[int, int] = (0, 0)

    def moved(self, value: ir.Value) -> _Seen:
        return replace(self, value=value)


@dataclass
class _Trace:
    facts: Facts
    domain: Domain = field(default_factory=Domain)
    queue: list[_Seen] = field(default_factory=list)

    def visit(self, seen: _Seen, node: ir.Node, position: int) -> None:
        """Learn from one use, and queue the values that the input's elements flow into."""
        function = self.facts.model.functions.get(node.op_identifier())
        if function is not None:
            self.queue.append(seen.moved(function.inputs[position]))
        elif node.domain == "ai.onnx.ml" and node.op_type == "LabelEncoder":
            for name in ("keys_int64s", "keys_strings"):
                if name in node.attributes:
                    self._compare(list(node.attributes[name].value)[:_SMALL])
        elif (node.domain, node.op_type) in _INDEXERS:
            for indices, table in _INDEXERS[node.domain, node.op_type]:
                if indices == position:
                    self._bound(seen, node, node.inputs[table])
        if node.domain == "":
            self._standard(seen, node, position)

    def _standard(self, seen: _Seen, node: ir.Node, position: int) -> None:
        op = node.op_type
        if op in {"Scan", "Loop"}:
            body = node.attributes["body"].as_graph()
            # Loop's trip count and condition are no inputs of their body under these positions.
            if position < len(body.inputs) and (op == "Scan" or position > 1):
                self.queue.append(seen.moved(body.inputs[position]))
        if position in _MOVERS.get(op, ()):
            self.queue += [seen.moved(output) for output in node.outputs]
        if position in _COUNTS.get(op, ()):
            self.domain = replace(self.domain, count=True)
        if op in _POSITIVE:
            self.domain = replace(self.domain, positive=True)
        if op == "OneHot" and position == 0:
            depth = self._constants(node.inputs[1])
            self._limit(seen, None if depth is None else int(depth[0]))
        if len(node.inputs) == 2:  # noqa: PLR2004 - a binary operator
            other = self._constants(node.inputs[1 - position])
            if other is not None:
                self._arithmetic(seen, node, position, other)

    def _arithmetic(
        self, seen: _Seen, node: ir.Node, position: int, other: npt.NDArray[Any]
    ) -> None:
        op, (low, high) = node.op_type, seen.offsets
        if op in _COMPARISONS and other.size <= _SMALL:
            if other.dtype.kind in "OU":
                self._compare([str(c) for c in other])
            elif other.dtype.kind in "iu" and low == high:
                at = [(int(c) - low) // seen.scale for c in other]
                spread = (0,) if op == "Equal" else (-1, 0, 1)
                self._compare([c + d for c in at for d in spread])
        if other.dtype.kind not in "iu":
            return
        least, most = int(other.min()), int(other.max())
        output = node.outputs[0]
        if op == "Add":
            self.queue.append(_Seen(output, seen.scale, (low + least, high + most)))
        elif op == "Sub" and position == 0:
            self.queue.append(_Seen(output, seen.scale, (low - most, high - least)))
        elif op == "Mul" and least == most > 0:
            self.queue.append(_Seen(output, seen.scale * most, (low * most, high * most)))

    def _bound(self, seen: _Seen, node: ir.Node, table: ir.Value | None) -> None:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        if node.op_type not in {"GatherND", "ScatterND"}:
            self._limit(seen, _axis_size(table, axis))
            return
        depth = _axis_size(node.inputs[1], -1)
        batch = node.attributes["batch_dims"].as_int() if "batch_dims" in node.attributes else 0
        for k in range(batch, batch + (depth if isinstance(depth, int) else 1)):
            self._limit(seen, _axis_size(table, k))

    def _limit(self, seen: _Seen, size: int | str | None) -> None:
        domain, (low, high) = self.domain, seen.offsets
        if isinstance(size, int):
            least = max(domain.low, -(low // seen.scale))
            bound = (size - 1 - high) // seen.scale + 1
            bound = bound if domain.high is None else min(bound, domain.high)
            self.domain = replace(domain, low=least, high=max(bound, least + 1))
        elif isinstance(size, str) and (seen.scale, low, high) == (1, 0, 0):
            self.domain = replace(domain, dims=domain.dims | {size}, index=True)
        else:
            self.domain = replace(domain, index=True)

    def _compare(self, values: list[int | str]) -> None:
        merged = dict.fromkeys((*self.domain.compared, *values))
        self.domain = replace(self.domain, compared=tuple(merged))

    def _constants(self, value: ir.Value | None) -> npt.NDArray[Any] | None:
        if value is None:
            return None
        array = self.facts.array(value)
        return None if array is None or array.size == 0 else array.reshape(-1)


def input_domain(facts: Facts, value: ir.Value) -> Domain:
    """Follow a graph input through the model and return the values that suit it.

    The input is followed through operators that move elements or shift integers by constants,
    into subgraphs and functions, up to where it indexes a table, is compared, or counts.

    Parameters
    ----------
    facts
        Facts of the model; constants are looked up there.
    value
        The graph input.
    """
    trace = _Trace(facts)
    trace.queue.append(_Seen(value))
    visited: set[_Seen] = set()
    while trace.queue and len(visited) < _MAX_STEPS:
        seen = trace.queue.pop()
        if seen in visited:
            continue
        visited.add(seen)
        for use in seen.value.uses():
            trace.visit(seen, use.node, use.idx)
    domain = trace.domain
    # Uses come in no promised order; sorted, a rerun draws the same values.
    return replace(domain, compared=tuple(sorted(domain.compared, key=lambda c: (str(type(c)), c))))


def _axis_size(value: ir.Value | None, axis: int) -> int | str | None:
    """Size of one axis: a number, the name of a symbolic dimension, or None when unknown."""
    while value is not None:
        shape = value.const_value.shape if value.const_value is not None else value.shape
        if shape is not None:
            if not -len(shape) <= axis < len(shape):
                return None
            size = shape[axis]
            return size if isinstance(size, int) else size.value
        node = value.producer()
        if node is None or node.op_type not in {"Cast", "DequantizeLinear", "Identity"}:
            return None
        value = node.inputs[0]
    return None
