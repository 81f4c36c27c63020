"""How much rounding is allowed, by dtype and by what a rewrite promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from structopt_onnx.model.exactness import Exactness

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDING = {
    # About a hundred units of rounding for the wide formats, two for the narrow ones, whose
    # products onnxruntime sums in float32: real rewrites stay far below, errors far above.
    "float64": 1e-12,
    "complex128": 1e-12,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
}
"""Relative L2 error that reordered arithmetic may cause; 0 for every dtype not listed."""

SAMPLE_FACTOR = 100.0
"""How many times the pooled tolerance a single sample may be off under `Exactness.ROUNDING`.

The pooled error hides a small sample that is all wrong among large ones; a sample's own error is
noisier than the pooled one where its terms cancel. This limit stands between the two.
"""

# Operators that only move or convert values: a float16 input there is storage, not arithmetic.
_MOVES = frozenset(
    {
        "Cast",
        "CastLike",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_FLOATS = {
    ir.DataType.DOUBLE: "float64",
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
}


def tolerance(dtype: str, exactness: Literal["bitwise", "rounding"] | Exactness) -> float:
    """Error an output may have by default.

    Parameters
    ----------
    dtype
        Name of the dtype, as in `OutputMetrics.dtype`.
    exactness
        What was promised. There is no default for lossy rewrites: the user sets that budget.

    Returns
    -------
    limit
        For "bitwise" 0, and the bits must be equal; for "rounding" the relative L2 error of
        floats, 0 for integers, bools and text.

    Raises
    ------
    ValueError
        `exactness` is lossy.
    """
    promise = Exactness(exactness)
    if promise is Exactness.LOSSY:
        raise ValueError("a lossy rewrite has no default tolerance")
    return 0.0 if promise is Exactness.BITWISE else ROUNDING.get(dtype, 0.0)


def arithmetic_dtype(model: ir.Model) -> str | None:
    """Name of the narrowest float format in which a model computes; None where it has none.

    A model can have float32 outputs and float16 inside: its outputs are then rounded like float16.
    Only formats that are known without inference count (weights, inputs, annotated values), and
    operators that merely move or convert values don't.
    """
    found = {
        _FLOATS[value.dtype]
        for node in _nodes(model)
        if not (node.domain == "" and node.op_type in _MOVES)
        for value in node.inputs
        if value is not None and value.dtype in _FLOATS
    }
    return max(found, key=ROUNDING.__getitem__, default=None)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)
