"""factor-embedding: a table of embeddings becomes a thin table and a matrix behind the Gather.

What it does
    ``y = Gather(E, ids)`` with E of V x d becomes ``y = Gather(E_r, ids) Q`` with E_r of V x r
    and Q of r x d. The directions kept are eigenvectors of the second moment of what the nodes
    gather on calibration data, where every row counts as often as its id occurs, mixed with that
    of the table itself, where every row counts once; without data they are the table's right
    singular vectors. All nodes that gather from the table are rewritten together.

Why
    r (V + d) < V d parameters. Time rises by one product per position, so that it pays in file
    size and in memory, seldom in speed.

Leaves alone
    Tables that anything but a Gather of rows reads (the tied head of a language model), that the
    caller can override, that lie in subgraphs or functions, of other than two dimensions, of
    other types than float16, float32 and float64, with infinities, or too small for any rank to
    pay.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.low_rank import OutputBasis, from_output_moment
from structopt_onnx.linalg.moments import LARGEST_DIMENSION
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.passes.low_rank.embedding_table import (
    REFUSALS,
    EmbeddingTable,
    find_tables,
    table_of,
)
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.linalg.workers import Workers
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True)
class FactorEmbedding(Pass):
    """Options of factor-embedding.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's.
    unseen
        Weight, from 0 to 1, of the table's own second moment beside that of the calibration
        data. Text always holds ids that the samples did not show, and the frequent ones are
        not those that tell most. On MiniLM (rank 128 of 384, 300 sentences) the mean cosine of
        held-out sentences is 0.80 at 0, 0.92 to 0.93 from 0.3 to 0.85, and 0.86 at 1.

    Raises
    ------
    ValueError
        When `unseen` is not between 0 and 1.
    """

    name: ClassVar[str] = "factor-embedding"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "no-rank-pays": "no rank at the target's multiples has fewer parameters than the table",
        "statistics-too-large": f"a row has more than {LARGEST_DIMENSION} features",
        "superseded": "an earlier rewrite of the plan took the table",
    }

    target: str = "cpu"
    rank_multiple: int = 0
    unseen: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.unseen <= 1:
            raise ValueError(f"unseen is {self.unseen}, not between 0 and 1")

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of what is gathered from each table found."""
        for table in find_tables(scope, facts):
            if isinstance(table, EmbeddingTable) and self._unpaid(table) is None:
                yield _statistic(table)

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per table, with an option per rank that pays."""
        found = find_tables(scope, facts)
        yield from facts.workers.each(lambda table: self._proposal(table, facts), found)

    def _proposal(self, table: EmbeddingTable | Refusal, facts: Facts) -> Choice | Refusal:
        if isinstance(table, Refusal):
            return table
        return self._unpaid(table) or self._choice(table, facts)

    def _unpaid(self, table: EmbeddingTable) -> Refusal | None:
        name, detail = table.weight.name or "", f"shape {table.weight.shape}"
        if not self._ranks(table):
            return Refusal("no-rank-pays", detail, name)
        if table.shape[1] > LARGEST_DIMENSION:
            return Refusal("statistics-too-large", detail, name)
        return None

    def _ranks(self, table: EmbeddingTable) -> range:
        rows, features = table.shape
        step = self.rank_multiple or TARGETS[self.target].rank_multiple
        return range(step, -(-rows * features // max(1, rows + features)), step)

    def _basis(
        self, table: EmbeddingTable, moments: Moments | None, workers: Workers
    ) -> OutputBasis:
        """Directions of the rows, as often as they are gathered.

        No mean is taken off: it would need an addition per position, and it is worth one rank
        at most, since the mean can be one of the directions.
        """
        most = self._ranks(table)[-1]
        if moments is None:
            return workers.solve(from_output_moment, table.moments().second_moment, most)
        moment = (1 - self.unseen) * moments.second_moment
        if self.unseen:
            moment += self.unseen * table.moments().second_moment
        return workers.solve(from_output_moment, moment, most)

    def _choice(self, table: EmbeddingTable, facts: Facts) -> Choice:
        moments = facts.statistic(_statistic(table))
        basis = self._basis(table, moments, facts.workers)
        name = table.weight.name or ""

        def patch(rank: int, scope: Scope, facts: Facts) -> Patch | Refusal:
            found = table_of(name, scope, facts)
            return found if isinstance(found, Refusal) else _factored(found, scope, basis, rank)

        return Choice(
            frozenset({name}),
            table.gathers[0].outputs[0].name or "",
            tuple(
                Option(
                    f"rank {rank}",
                    basis.error(rank),
                    self._cost(table, facts, None),
                    self._cost(table, facts, rank),
                    partial(patch, rank),
                    rank,
                )
                for rank in self._ranks(table)
                if rank <= basis.size
            ),
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
            basis.spectrum,
        )

    def _cost(self, table: EmbeddingTable, facts: Facts, rank: int | None) -> Cost:
        rows, features = table.shape
        back = 0 if rank is None else rank * features
        positions = 0
        for node in table.gathers:
            made = facts.concrete(node.outputs[0])
            positions += int(np.prod(made, dtype=np.int64)) // features if made else 1
        width = features if rank is None else rank
        item = table.tensor.dtype.itemsize
        cost = Cost(
            parameters=rows * width + back,
            bytes=int((rows * width + back) * item),
            macs=positions * back,
            nodes=len(table.gathers) * (1 if rank is None else 2),
        )
        # A Gather reads the rows it is asked for and not the table.
        read = replace(cost, bytes=int((positions * width + back) * item))
        return replace(cost, seconds=TARGETS[self.target].seconds(read))


def _statistic(table: EmbeddingTable) -> Statistic:
    return Statistic(tuple(node.outputs[0].name or "" for node in table.gathers), -1)


def _factored(table: EmbeddingTable, scope: Scope, basis: OutputBasis, rank: int) -> Patch:
    thin_table, back = table.factors(basis.vectors[:, :rank])
    name = table.weight.name
    constants = (
        Fresh(f"{name}_in", ir.tensor(thin_table)),
        Fresh(f"{name}_out", ir.tensor(back)),
    )
    added: list[NewNode] = []
    rewire: dict[ir.Value, ir.Value | Fresh] = {}
    for node in table.gathers:
        output = node.outputs[0]
        thin, wide = Fresh(f"{output.name}_thin"), Fresh(f"{output.name}_wide")
        added += [
            NewNode("Gather", (constants[0], node.inputs[1]), (thin,), {"axis": 0}),
            NewNode("MatMul", (thin, constants[1]), (wide,)),
        ]
        rewire[output] = wide
    rows, features = table.shape
    title = f"{name}: table of {rows} x {features} at rank {rank}"
    edit = Edit(remove=table.gathers, add=tuple(added), rewire=rewire)
    return Patch(title, table.gathers[0], {scope: edit})
