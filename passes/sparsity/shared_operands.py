"""Stored operands that several nodes read: they are cut for all of them in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Slicing, Table

_VECTOR = 1  # what is no larger may be stored twice


def agree(table: Table) -> None:
    """Join the lanes that cut an operand of several readers, and keep those of which one can't.

    Parameters
    ----------
    table
        The lanes of a scope, all nodes noted.
    """
    cuts: dict[ir.Value, dict[tuple[ir.Node, int], list[Slicing]]] = {}
    for node, slicings in table.slicings.items():
        for slicing in slicings:
            value = node.inputs[slicing.index]
            if value is not None:
                cuts.setdefault(value, {}).setdefault((node, slicing.index), []).append(slicing)
    for value, readers in cuts.items():
        uses = value.uses()
        (_, lead), *rest = readers.items()
        axes = {slicing.axis: slicing.ids for slicing in lead}
        alike = all({s.axis for s in others} == set(axes) for _, others in rest)
        if len(readers) == len(uses) and alike:
            for _, others in rest:
                for slicing in others:
                    table.join(axes[slicing.axis], slicing.ids)
        elif (table.facts.rank(value) or 0) > _VECTOR:
            for slicing in (s for each in readers.values() for s in each):
                table.fixed.append((slicing.ids, "weight-shared"))
