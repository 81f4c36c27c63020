"""What lanes hold behind operators that work on each channel by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
from onnx.reference import ReferenceEvaluator

from structopt_onnx.model.inference import node_proto
from structopt_onnx.passes.sparsity.lanes import CONSTANT, Held

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Floats, Mask, Table


def constants(values: npt.NDArray[Any] | float, count: int) -> Held:
    """Return lanes of known numbers, one per lane or one for all."""
    factors = np.broadcast_to(np.asarray(values, np.float64), (count,))
    return Held(np.full(count, CONSTANT), factors)


def _where(mask: Mask, one: Held, other: Held) -> Held:
    return Held(
        np.where(mask, one.symbols, other.symbols), np.where(mask, one.factors, other.factors)
    )


def total(table: Table, one: Held, other: Held) -> Held:
    """Return the sum, proportional where both operands are, by the same factor."""
    swap = one.constant & ~other.constant
    one, other = _where(swap, other, one), _where(swap, one, other)
    same = one.symbols == other.symbols
    summed = np.where(other.zero, one.factors, one.factors + other.factors)
    alike = Held(np.where(summed == 0, CONSTANT, one.symbols), summed)
    ratio = np.divide(other.factors, one.factors, out=np.zeros_like(summed), where=one.factors != 0)
    symbols = table.new_symbols(one.symbols, other.symbols, ratio)
    return _where(same | other.zero, alike, Held(symbols, one.factors))


def product(table: Table, one: Held, other: Held) -> Held:
    """Return the product, which is linear in both operands."""
    factors = one.factors * other.factors
    low, high = np.minimum(one.symbols, other.symbols), np.maximum(one.symbols, other.symbols)
    simple = one.constant | other.constant  # then `high` is the symbol of the other operand
    symbols = np.where(simple, high, table.new_symbols(low, high))
    return Held(np.where(factors == 0, CONSTANT, symbols), factors)


def negated(held: Held) -> Held:
    """Return the lanes with the other sign."""
    return Held(held.symbols, -held.factors)


def linear(table: Table, held: Held, *keys: npt.NDArray[Any]) -> Held:
    """Return what a linear operator makes that is the same on every lane and keeps constants."""
    symbols = table.new_symbols(held.symbols, *keys)
    return Held(np.where(held.constant, CONSTANT, symbols), held.factors)


def homogeneous(table: Table, held: Held, made: Floats, *keys: npt.NDArray[Any]) -> Held:
    """Return what an operator makes that lets positive factors through.

    Parameters
    ----------
    made
        What it makes of the lanes that are constant.
    keys
        What lanes must have in common beside their symbol and sign.
    """
    symbols = table.new_symbols(held.symbols, np.sign(held.factors), *keys)
    result = Held(symbols, np.abs(held.factors))
    return known(table, held.constant, made, result)


def known(table: Table, mask: Mask, made: Floats, otherwise: Held) -> Held:
    """Put constants in where they are finite; an infinite one is an unknown lane."""
    finite = mask & np.isfinite(made)
    unknown = table.unknown(len(made))
    return _where(
        finite, Held(np.full(len(made), CONSTANT), made), _where(mask, unknown, otherwise)
    )


def any_function(table: Table, operands: Sequence[Held], mask: Mask, made: Floats) -> Held:
    """Return what a function makes of which nothing is known but that it is one."""
    keys = [key for held in operands for key in (held.symbols, held.factors)]
    symbols = table.new_symbols(*keys)
    return known(table, mask, made, Held(symbols, np.ones(len(symbols))))


def evaluated(
    node: ir.Node, operands: Sequence[npt.NDArray[Any] | None], opset: int, mask: Mask
) -> Floats:
    """Return what a node makes of constants in float64; NaN outside of the mask.

    Parameters
    ----------
    node
        An operator that works element by element.
    operands
        A number per lane, or one number; None where left out.
    opset
        Version of the operator set.
    mask
        The lanes to look at.
    """
    made = np.full(len(mask), np.nan)
    if not mask.any():
        return made
    names = ["" if operand is None else f"in{k}" for k, operand in enumerate(operands)]
    proto = node_proto(node.op_type, "", names, ["out"], list(node.attributes.values()))
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, None) for n in names if n],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.DOUBLE, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {
        name: operand if operand.ndim == 0 else operand[mask]
        for name, operand in zip(names, operands, strict=True)
        if operand is not None
    }
    with np.errstate(all="ignore"):
        (result,) = ReferenceEvaluator(model).run(None, feeds)
    made[mask] = result
    return made
