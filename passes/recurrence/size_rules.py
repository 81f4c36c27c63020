"""Output dimensions of the operators found around recurrences, symbols included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.dims import Dim, Dims, Unknown, broadcast, divided, rest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir


Shapes = list[Dims]
Elements = Sequence[tuple[Dim, ...] | None]
_MATRIX = 2

SAME = frozenset(
    {
        *("Identity", "Cast", "Sigmoid", "Tanh", "Relu", "Elu", "LeakyRelu", "HardSigmoid"),
        *("Softplus", "Softsign", "ThresholdedRelu", "Selu", "Gelu", "Erf", "Exp", "Log", "Neg"),
        *("Sin", "Cos", "Abs", "Sqrt", "Not", "Softmax", "LogSoftmax", "Clip", "Dropout"),
        *("HardSwish", "Mish", "LayerNormalization", "BatchNormalization", "Reciprocal", "Ceil"),
        *("Floor", "Sign", "Round", "Celu"),
    }
)
BROADCAST = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "Less", "Greater", "And", "Or"),
        *("Where", "Sum", "Mean", "PRelu", "GreaterOrEqual", "LessOrEqual", "Xor", "Mod"),
    }
)


def output_dims(
    node: ir.Node,
    inputs: Sequence[Dims | None],
    contents: Sequence[tuple[Dim, ...] | None],
) -> list[Dims | None] | None:
    """Return the dimensions of a node's outputs; None where they do not follow.

    Parameters
    ----------
    node
        A node of the default domain.
    inputs, contents
        Dimensions of its inputs, and their elements where they are small integers.
    """
    first = inputs[0] if inputs else None
    if node.op_type in SAME:
        return [first]
    if node.op_type in BROADCAST:
        shapes = [shape for shape in inputs if shape is not None]
        return [broadcast(shapes)] if len(shapes) == len(inputs) else None
    rule = _RULES.get(node.op_type)
    if rule is None or None in inputs[: _NEEDED.get(node.op_type, 1)]:
        return None
    if node.op_type == "Concat" and None in inputs:
        return None
    try:
        return rule(node, [() if d is None else d for d in inputs], contents)
    except (IndexError, ValueError, ZeroDivisionError):
        return None  # what the rule needs is not known, or the model is wrong and says so itself


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _axes(node: ir.Node, contents: Elements) -> list[int] | None:
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    if len(contents) > 1 and node.inputs[1] is not None:
        return _numbers(contents[1])
    return None


def _numbers(elements: Sequence[Dim] | None) -> list[int]:
    if elements is None or not all(isinstance(e, int) for e in elements):
        raise ValueError("not known")
    return [e for e in elements if isinstance(e, int)]


def _gemm(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    rows, inner = inputs[0][::-1] if _int(node, "transA", 0) else inputs[0]
    _, columns = inputs[1][::-1] if _int(node, "transB", 0) else inputs[1]
    del inner
    return [(rows, columns)]


def _matmul(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del node, contents
    one, other = inputs
    if len(one) < _MATRIX or len(other) < _MATRIX:
        raise ValueError("vectors")
    return [(*broadcast([one[:-2], other[:-2]]), one[-2], other[-1])]


def _gather(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    data, indices = inputs
    axis = _int(node, "axis", 0) % len(data)
    return [data[:axis] + indices + data[axis + 1 :]]


def _unsqueeze(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    axes, shape = _axes(node, contents) or [], list(inputs[0])
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return [tuple(shape)]


def _squeeze(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    axes, shape = _axes(node, contents), inputs[0]
    if axes is None:
        if not all(isinstance(d, int) for d in shape):
            raise ValueError("which dimensions are 1 is not known")
        return [tuple(d for d in shape if d != 1)]
    gone = {a % len(shape) for a in axes}
    return [tuple(d for axis, d in enumerate(shape) if axis not in gone)]


def _transpose(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    rank = len(inputs[0])
    given = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
    perm = range(rank)[::-1] if given is None else given
    return [tuple(inputs[0][axis] for axis in perm)]


def _concat(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    axis = node.attributes["axis"].as_int() % len(inputs[0])
    sizes = [shape[axis] for shape in inputs]
    numbers = [size for size in sizes if isinstance(size, int)]
    total = sum(numbers) if len(numbers) == len(sizes) else Unknown()
    # The other dimensions are equal in every run that works: take the one that says most.
    rest = [
        next((s[k] for s in inputs if isinstance(s[k], int)), inputs[0][k])
        for k in range(len(inputs[0]))
    ]
    rest[axis] = total
    return [tuple(rest)]


def _split(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    shape, count = inputs[0], len(node.outputs)
    axis = _int(node, "axis", 0) % len(shape)
    size = shape[axis]
    sizes: Sequence[Dim] | None = None
    if "split" in node.attributes:
        sizes = node.attributes["split"].as_ints()
    elif len(contents) > 1 and node.inputs[1] is not None:
        sizes = contents[1]
    elif isinstance(size, int):
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    elif (whole := divided(size, count)) is not None:
        sizes = [whole] * count
    if sizes is None:
        sizes = [Unknown() for _ in range(count)]
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]


def _slice(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    shape = list(inputs[0])
    steps: Sequence[Dim] | None = None
    if "starts" in node.attributes:
        starts: Sequence[Dim] | None = node.attributes["starts"].as_ints()
        ends: Sequence[Dim] | None = node.attributes["ends"].as_ints()
        axes = _axes(node, ()) or list(range(len(starts or ())))
    else:
        given = [node.inputs[k] is not None if len(contents) > k else False for k in range(5)]
        starts, ends = contents[1], contents[2]
        axes = _numbers(contents[3]) if given[3] else list(range(_numbers(inputs[1])[0]))
        steps = contents[4] if given[4] else None
        if given[4] and steps is None:
            starts = None
    for position, axis in enumerate(axes):
        shape[axis] = _cut(
            shape[axis],
            None if starts is None else starts[position],
            None if ends is None else ends[position],
            1 if steps is None else steps[position],
        )
    return [tuple(shape)]


def _cut(size: Dim, start: Dim | None, end: Dim | None, step: Dim) -> Dim:
    if not isinstance(size, int) or not isinstance(start, int) or not isinstance(end, int):
        return Unknown()
    if not isinstance(step, int) or step <= 0:
        return Unknown()
    return len(range(size)[start:end:step])


def _reshape(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    shape, wanted = inputs[0], contents[1]
    if wanted is None:
        return [None]
    if not _int(node, "allowzero", 0) and 0 in wanted:
        wanted = tuple(shape[k] if w == 0 else w for k, w in enumerate(wanted))
    if -1 not in wanted:
        return [wanted]
    return [tuple(rest_of(shape, wanted) if w == -1 else w for w in wanted)]


def _windowed(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    """Follow a convolution or a pool: channels as its weight has them, positions by arithmetic."""
    del contents
    batch, channels, *sizes = inputs[0]
    if node.op_type == "Conv":
        channels, _, *window = inputs[1]
    else:
        window = list(node.attributes["kernel_shape"].as_ints())
    rank = len(sizes)
    strides, dilations = (_ints(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _ints(node, "pads", [0] * (2 * rank))
    named = "auto_pad" in node.attributes
    padding = node.attributes["auto_pad"].as_string() if named else "NOTSET"
    made: list[Dim] = []
    for k, (size, taps) in enumerate(zip(sizes, window, strict=True)):
        if not isinstance(size, int) or not isinstance(taps, int):
            made.append(Unknown())
        elif padding.startswith("SAME"):
            made.append(-(-size // strides[k]))
        else:
            free = size + pads[k] + pads[rank + k] - (taps - 1) * dilations[k] - 1
            whole = free % strides[k] == 0 or not _int(node, "ceil_mode", 0)
            made.append(free // strides[k] + 1 if whole else Unknown())
    return [(batch, channels, *made)] * len(node.outputs)


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def _recurrent(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    steps, batch, _ = inputs[0]
    directions, _, hidden = inputs[2]
    last = (directions, batch, hidden)
    made: list[Dims | None] = [(steps, directions, batch, hidden), last, last]
    return made[: len(node.outputs)]


def _expand(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del node
    target = contents[1]
    return [None if target is None else broadcast([inputs[0], target])]


def _constant_of_shape(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del node, inputs
    return [contents[0]]


def _shape(node: ir.Node, inputs: Shapes, contents: Elements) -> list[Dims | None]:
    del contents
    start, end = _int(node, "start", 0), _int(node, "end", len(inputs[0]))
    return [(len(inputs[0][start:end]),)]


_NEEDED = {
    **dict.fromkeys(("Gather", "Gemm", "MatMul", "Conv"), 2),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), 3),
    "ConstantOfShape": 0,
}
_RULES: dict[str, Callable[[ir.Node, Shapes, Elements], list[Dims | None]]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool"), _windowed),
}
