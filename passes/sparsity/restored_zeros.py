"""Sums of which one operand has zeros at its ends: they can go, and come back by a Pad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.sparsity import arithmetic
from structopt_onnx.passes.sparsity.lanes import Change, Cut, Lanes

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Table

_PADS_AS_INPUT = 11


def sum_with_zeros(table: Table, node: ir.Node) -> bool:
    """Note an Add or Sub whose zeros go for themselves; False where it is none.

    Parameters
    ----------
    table
        The lanes so far.
    node
        An Add or Sub.
    """
    found = [table.lanes.get(value) for value in node.inputs if value is not None]
    one, other = found if len(found) == 2 else (None, None)  # noqa: PLR2004 - of a binary operator
    if one is None or other is None or (one.axis, one.size) != (other.axis, other.size):
        return False
    index = 0 if one.held.zero.any() and not other.held.zero.any() else 1
    thin, full = (one, other) if index == 0 else (other, one)
    rank = table.facts.rank(node.inputs[index])
    alive = np.flatnonzero(~thin.held.zero)
    inner = slice(int(alive[0]), int(alive[-1]) + 1) if len(alive) else slice(0, 0)
    old = (table.facts.opset(table.scope) or 1) < _PADS_AS_INPUT
    if rank is None or old or not 0 < inner.stop - inner.start == len(alive) < thin.size:
        return False
    table.join(full.ids[inner], thin.ids[inner])
    second = other.held if node.op_type == "Add" else arithmetic.negated(other.held)
    held = arithmetic.total(table, one.held, second)
    table.lanes[node.outputs[0]] = Lanes(full.axis, full.ids, held)

    def change(cut: Cut) -> Change:
        missing = cut.kept(full.ids).astype(int) - cut.kept(thin.ids)
        pads = [0] * (2 * rank)
        pads[rank + full.axis] = int(missing[: inner.start].sum())
        pads[full.axis] = int(missing[inner.stop :].sum())
        return Change(padded=(index, tuple(pads)) if any(pads) else None)

    table.changes[node] = change
    return True
