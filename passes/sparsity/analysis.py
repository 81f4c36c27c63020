"""Which channels of a scope are dead, by operators that are followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.passes.sparsity import moves, per_channel, products, space
from structopt_onnx.passes.sparsity.lanes import Table
from structopt_onnx.passes.sparsity.liveness import Liveness
from structopt_onnx.passes.sparsity.recurrent_units import recurrent
from structopt_onnx.passes.sparsity.restored_zeros import sum_with_zeros
from structopt_onnx.passes.sparsity.shared_operands import agree

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Operators = dict[str, Callable[[Table, ir.Node], str]]

_MIXING = [
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
]
_OPERATORS: Operators = {
    **dict.fromkeys(per_channel.ELEMENTWISE, per_channel.elementwise),
    **dict.fromkeys(per_channel.SAME, per_channel.same),
    **dict.fromkeys(_MIXING, space.mixing),
    **dict.fromkeys(["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"], space.pool),
    **dict.fromkeys(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"], space.reduction),
    **dict.fromkeys(["Softmax", "LogSoftmax"], space.softmax),
    **dict.fromkeys(["Squeeze", "Unsqueeze"], moves.squeeze),
    **dict.fromkeys(["Flatten", "Reshape"], moves.reshape),
    **dict.fromkeys(["Conv", "ConvTranspose"], products.convolution),
    **dict.fromkeys(["GRU", "LSTM", "RNN"], recurrent),
    "BatchNormalization": per_channel.normalization,
    "Concat": moves.concat,
    "Gather": moves.gather,
    "Gemm": products.gemm,
    "MatMul": products.matmul,
    "Pad": space.pad,
    "Slice": moves.cut_out,
    "Split": moves.split,
    "Transpose": moves.transpose,
}


def _sum(table: Table, node: ir.Node) -> str:
    return "" if sum_with_zeros(table, node) else per_channel.elementwise(table, node)


_RESTORING = {"Add": _sum, "Sub": _sum}


def analysis(scope: Scope, facts: Facts) -> tuple[Table, Liveness]:
    """Find the lanes of a scope, and those that can be cut.

    Zeros that a sum would have to get back are looked for only where nothing else is dead.
    """
    table, alive = _with(_OPERATORS, scope, facts)
    disagree = any(blocked.code == "operands-disagree" for blocked in alive.blocked)
    if disagree and not alive.cut.lost.any():
        return _with(_OPERATORS | _RESTORING, scope, facts)
    return table, alive


def _with(operators: Operators, scope: Scope, facts: Facts) -> tuple[Table, Liveness]:
    with np.errstate(all="ignore"):  # what is not finite is an unknown, or refused
        table = Table(scope, facts, operators)
        agree(table)
        return table, Liveness(table)


def dead_channels(facts: Facts) -> dict[ir.Value, int]:
    """Count the channels and units that could be cut, by the weight that makes them.

    Parameters
    ----------
    facts
        Facts about a model; functions are not looked at.
    """
    found: dict[ir.Value, int] = {}
    for scope in facts.scopes:
        if scope.in_function:
            continue
        table, alive = analysis(scope, facts)
        for node in table.makers:
            lost = int((~alive.cut.kept(table.lanes[node.outputs[0]].ids)).sum())
            stored = (value for value in node.inputs[:2] if facts.tensor(value) is not None)
            weight = next(stored, None)
            if lost and weight is not None:
                found[weight] = max(lost, found.get(weight, 0))
    return found
