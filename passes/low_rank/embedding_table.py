"""Where rows of a constant table are gathered: the nodes that do, and whether all of them do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

REFUSALS = {
    "table-not-constant": "the caller can override the table",
    "table-rank": "the table does not have two dimensions",
    "table-dtype": "the table is not float16, float32 or float64",
    "table-axis": "a node gathers columns of the table",
    "table-tied": "something other than a Gather reads the table too",
    "table-is-output": "the table is a graph output",
    "table-not-finite": "the table holds an infinity or a NaN",
    "inside-subgraph": "activations inside a subgraph or function can't be observed",
}
_MATRIX = 2
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """A table and every Gather that reads it.

    Parameters
    ----------
    weight
        The initializer, stored [V, d]: one row per id.
    gathers
        The nodes, in graph order; each gathers rows.
    """

    weight: ir.Value
    gathers: tuple[ir.Node, ...]

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The table as stored."""
        tensor = self.weight.const_value
        if tensor is None:  # matched on a constant
            raise ValueError(self.weight.name)
        return tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d): rows and features."""
        rows, features = (int(d) for d in self.tensor.shape.numpy())
        return rows, features

    def moments(self) -> Moments:
        """Return the moments of the rows, each counted once."""
        accumulator = MomentsAccumulator(self.shape[1])
        accumulator.update(self.tensor.numpy())
        return accumulator.moments()

    def factors(
        self, directions: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        """Return the thin table [V, r] and the way back [r, d], in the table's type.

        Parameters
        ----------
        directions
            Orthonormal columns, float64 [d, r].
        """
        dtype = self.tensor.dtype.numpy()
        thin = np.asarray(self.tensor.numpy(), np.float64) @ directions
        return thin.astype(dtype), np.ascontiguousarray(directions.T, dtype)


def find_tables(scope: Scope, facts: Facts) -> Iterator[EmbeddingTable | Refusal]:
    """Yield each table of floats that Gather nodes of a scope read, or why it must stay."""
    seen: set[ir.Value] = set()
    for node in scope.graph:
        if node.domain != "" or node.op_type != "Gather":
            continue
        table = node.inputs[0]
        if table is None or table in seen or not table.is_initializer():
            continue
        seen.add(table)
        found = _table(table, scope, facts)
        if found is not None:
            yield found


def table_of(name: str, scope: Scope, facts: Facts) -> EmbeddingTable | Refusal:
    """Find a table again by name; code ``superseded`` when it is gone."""
    table = scope.graph.initializers.get(name)
    found = None if table is None else _table(table, scope, facts)
    return found or Refusal("superseded", "an earlier rewrite took it", name)


def _table(table: ir.Value, scope: Scope, facts: Facts) -> EmbeddingTable | Refusal | None:
    name = table.name or ""
    tensor = table.const_value
    if tensor is None or not tensor.dtype.is_floating_point():
        return None
    unfit = _unfit(table, tensor, scope, facts)
    if unfit is not None:
        return Refusal(*unfit, name)
    for node, index in table.uses():
        if node.graph is not scope.graph:
            return Refusal("inside-subgraph", f"node '{node.name}' reads it", name)
        if node.domain != "" or node.op_type != "Gather" or index != 0:
            return Refusal("table-tied", f"{node.op_type} '{node.name}' reads it", name)
        axis = node.attributes.get("axis")
        if axis is not None and axis.as_int() not in {0, -_MATRIX}:
            return Refusal("table-axis", f"Gather '{node.name}' along {axis.as_int()}", name)
    order = {node: position for position, node in enumerate(scope.graph)}
    gathers = sorted((node for node, _ in table.uses()), key=order.__getitem__)
    return EmbeddingTable(table, tuple(gathers))


def _unfit(
    table: ir.Value, tensor: ir.TensorProtocol, scope: Scope, facts: Facts
) -> tuple[str, str] | None:
    if not scope.is_main:
        return "inside-subgraph", scope.path
    if facts.tensor(table) is None:
        return "table-not-constant", "it is a graph input as well"
    if table.is_graph_output():
        return "table-is-output", "it is a graph output as well"
    if len(tensor.shape) != _MATRIX:
        return "table-rank", f"shape {tensor.shape}"
    if tensor.dtype not in _DTYPES:
        return "table-dtype", tensor.dtype.name
    # What can't be decomposed, as masks of -inf, can't be observed either.
    if not np.isfinite(tensor.numpy()).all():
        return "table-not-finite", "such a row has no directions"
    return None
