"""Forms of what single nodes do, on the last axis of their operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.recurrence.forms import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    import onnx_ir as ir

    from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
    from structopt_onnx.passes.recurrence.dims import Dim

_MATRIX = 2
Row = tuple[Form, ...]
_FUNCTIONS = {
    *("Sigmoid", "Tanh", "Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu"),
    *("Softsign", "Softplus", "Sin", "Cos", "Exp", "Erf", "Abs", "Selu", "Gelu"),
}


class NoForm(Exception):  # noqa: N818 - not an error: the value is taken as it is
    """What a node does has no form here."""


def _sum(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    signs = [1.0, -1.0 if node.op_type == "Sub" else 1.0]
    rows = [values.row(v) for v in values.reads(node) if v is not None]
    cut = _aligned(values, rows)
    return tuple(
        values.algebra.add(
            form if sign == 1 else values.algebra.scale(form, np.asarray(sign))
            for form, sign in zip(forms, signs, strict=True)
        )
        for forms in cut
    )


def _multiplied(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    cut = _aligned(values, [values.row(v) for v in values.reads(node) if v is not None])
    return tuple(values.algebra.multiply(one, other) for one, other in cut)


def _divided(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    divisor = values.facts.array(node.inputs[1])
    if divisor is None or not np.all(divisor):
        raise NoForm(node.name)
    factor = values.algebra.constant(1 / vector(divisor, values.rows).astype(np.float64))
    cut = _aligned(values, [_input(values, node), (factor,)])
    return tuple(values.algebra.multiply(one, other) for one, other in cut)


def _negated(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    return tuple(values.algebra.scale(f, np.asarray(-1.0)) for f in _input(values, node))


def _applied(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    names = tuple(sorted((n, a.value) for n, a in node.attributes.items()))
    function = (node.op_type, *names)
    return tuple(values.algebra.apply(function, form) for form in _input(values, node))


def _same(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    return _input(values, node)


def _input(values: SliceAlgebra, node: ir.Node) -> Row:
    value = values.reads(node)[0]
    if value is None:
        raise NoForm(node.name)
    return values.row(value)


def _gemm(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    weight = values.facts.array(node.inputs[1])
    if weight is None or _int(node, "transA"):
        raise NoForm(node.name)
    matrix = weight if _int(node, "transB") else weight.T
    form = values.algebra.product(matrix, values.factor(node))
    form = values.algebra.scale(form, np.asarray(_float(node, "alpha")))
    if len(node.inputs) > _MATRIX and node.inputs[2] is not None:
        (bias,) = _one(values.row(node.inputs[2]))
        scaled = values.algebra.scale(bias, np.asarray(_float(node, "beta")))
        form = values.algebra.add([form, _spread(values, scaled, form.width)])
    return (form,)


def _matmul(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    del value
    weight = values.facts.array(node.inputs[1])
    if weight is None or weight.ndim != _MATRIX:
        raise NoForm(node.name)
    return (values.algebra.product(weight.T, values.factor(node)),)


def _concatenated(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    _check_last(values, node, value, node.attributes["axis"].as_int())
    return tuple(form for v in values.reads(node) if v is not None for form in values.row(v))


def _split(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    _check_last(values, node, value, _int(node, "axis"))
    start = 0
    for output in node.outputs:
        dims = values.sizes.dims(output)
        if not dims or not isinstance(dims[-1], int):
            break
        if output is value:
            return _part(values, _input(values, node), start, start + dims[-1])
        start += dims[-1]
    raise NoForm(node.name)


def _sliced(values: SliceAlgebra, node: ir.Node, value: ir.Value) -> Row:
    if "starts" in node.attributes:
        ranges: list[tuple[Dim, ...] | None] = [
            tuple(node.attributes[n].as_ints()) for n in ("starts", "ends")
        ]
        axes = node.attributes.get("axes")
        ranges += [tuple(axes.as_ints()) if axes is not None else (0,), (1,)]
    else:
        ranges = [values.sizes.contents(v) for v in node.inputs[1:]]
        ranges += [(0,), (1,)][len(ranges) - 2 :]
    whole = values.sizes.dims(node.inputs[0])
    numbers = [r[0] for r in ranges if r is not None and len(r) == 1]
    known = [n for n in numbers if isinstance(n, int)]
    if len(known) != len(ranges) or not whole:
        raise NoForm(node.name)
    start, stop, axis, step = known
    _check_last(values, node, value, axis)
    if step != 1 or not isinstance(whole[-1], int):
        raise NoForm(node.name)
    start, stop, _ = slice(start, stop).indices(whole[-1])
    return _part(values, _input(values, node), start, stop)


def _check_last(values: SliceAlgebra, node: ir.Node, value: ir.Value, axis: int) -> None:
    dims = values.sizes.dims(value)
    if dims is None or axis % len(dims) != len(dims) - 1:
        raise NoForm(node.name)


def _part(values: SliceAlgebra, row: Row, start: int, stop: int) -> Row:
    found, at = [], 0
    for form in row:
        low, high = max(start, at), min(stop, at + form.width)
        if low < high:
            found.append(values.algebra.part(form, low - at, high - at))
        at += form.width
    if stop > at or not found:
        raise NoForm("out of range")
    return tuple(found)


def _aligned(values: SliceAlgebra, rows: Iterable[Row]) -> list[tuple[Form, ...]]:
    """Cut rows where any of them is cut; a constant of width 1 is spread."""
    rows = list(rows)
    total = max(sum(form.width for form in row) for row in rows)
    whole = [
        (_spread(values, row[0], total),) if len(row) == 1 and row[0].width < total else row
        for row in rows
    ]
    ends: set[int] = set()
    for row in whole:
        at = 0
        for form in row:
            at += form.width
            ends.add(at)
        if at != total:
            raise NoForm("widths differ")
    starts = [0, *sorted(ends)[:-1]]
    cuts = list(zip(starts, sorted(ends), strict=True))
    return [tuple(_part(values, row, a, b)[0] for row in whole) for a, b in cuts]


def _spread(values: SliceAlgebra, form: Form, width: int) -> Form:
    if form.width == width:
        return form
    if not form.is_constant or form.width != 1:
        raise NoForm("features are broadcast")
    numbers = np.broadcast_to(form.terms.get((), np.zeros(())), (1,))
    return values.algebra.constant(np.repeat(numbers, width))


def _one(row: Row) -> Row:
    if len(row) != 1:
        raise NoForm("several parts")
    return row


def vector(array: np.ndarray, heights: Container[int]) -> np.ndarray:
    """Return a constant as one row; it must be the same for every row of the batch."""
    if array.dtype.kind != "f" or array.ndim > _MATRIX:
        raise NoForm("not a row of numbers")
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    if len(rows) not in heights:
        raise NoForm("rows of their own")
    if not len(rows) or np.any(rows != rows[0]):
        raise NoForm("rows differ")
    first: np.ndarray = rows[0]
    return first


def _int(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _float(node: ir.Node, name: str) -> float:
    return float(node.attributes[name].as_float()) if name in node.attributes else 1.0


RULES: dict[str, Callable[[SliceAlgebra, ir.Node, ir.Value], Row]] = {
    "Add": _sum,
    "Sub": _sum,
    "Mul": _multiplied,
    "Div": _divided,
    "Neg": _negated,
    "Identity": _same,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Concat": _concatenated,
    "Split": _split,
    "Slice": _sliced,
    **dict.fromkeys(_FUNCTIONS, _applied),
}
LINEAR = {
    RULES[name]
    for name in (
        "Add",
        "Sub",
        "Mul",
        "Neg",
        "Identity",
        "Gemm",
        "MatMul",
        "Concat",
        "Split",
        "Slice",
    )
}
