"""narrow-embedding: a table of embeddings that only a recurrence reads gets fewer columns.

What it does
    Where an RNN, GRU or LSTM reads rows of a table and nothing else does, its input weight W of
    m x d and the table E of V x d meet in ``W e`` alone. With U the r directions that carry it,
    the table becomes ``E W^T U`` of V x r and the weight U of m x r: no operator is added. The
    directions are eigenvectors of the second moment of ``W e``, for rows as often as they are
    gathered on calibration data mixed with every row counted once; without data the latter.

Why
    r (V + m) < d (V + m) parameters, and as much less to multiply with, at the least error of any
    cut of the table as the recurrence sees it.

Leaves alone
    Tables that several nodes gather from, and what lies between other than transposes that keep
    the features last. What factor-embedding and factor-recurrent-input leave alone.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.low_rank import from_input_moment
from structopt_onnx.linalg.moments import LARGEST_DIMENSION
from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.passes.low_rank.embedding_table import EmbeddingTable, table_of
from structopt_onnx.passes.low_rank.recurrent_site import RecurrentSite, find_weights, site_of
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True, eq=False)
class Reading:
    """A table, and the one input weight that meets its rows.

    Parameters
    ----------
    table, site
        E, and W with the nodes that read it.
    path
        The Gather and the transposes behind it, in graph order.
    """

    table: EmbeddingTable
    site: RecurrentSite
    path: tuple[ir.Node, ...]

    @property
    def statistic(self) -> Statistic:
        """The moments of the rows gathered."""
        return Statistic((self.path[0].outputs[0].name or "",), -1)


@dataclass(frozen=True)
class NarrowEmbedding(Pass):
    """Options of narrow-embedding.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's.
    unseen
        Weight, from 0 to 1, of the table's own second moment beside that of the calibration data:
        see factor-embedding.

    Raises
    ------
    ValueError
        When `unseen` is not between 0 and 1.
    """

    name: ClassVar[str] = "narrow-embedding"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        "no-rank-pays": "the features are fewer than the target's multiple of ranks",
        "rows-read-elsewhere": "something else reads what is gathered",
        "statistics-too-large": f"a row has more than {LARGEST_DIMENSION} features",
        "superseded": "an earlier rewrite of the plan took the table or the weight",
    }

    target: str = "cpu"
    rank_multiple: int = 0
    unseen: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.unseen <= 1:
            raise ValueError(f"unseen is {self.unseen}, not between 0 and 1")

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of what is gathered from each table found."""
        for found in self._found(scope, facts):
            if isinstance(found, Reading):
                yield found.statistic

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per table, with an option per rank."""

        def proposal(found: Reading | Refusal) -> Choice | Refusal:
            return found if isinstance(found, Refusal) else self._choice(found, facts)

        yield from facts.workers.each(proposal, self._found(scope, facts))

    def _found(self, scope: Scope, facts: Facts) -> Iterator[Reading | Refusal]:
        for site in find_weights(scope, facts):
            found = _reading(site, scope, facts) if isinstance(site, RecurrentSite) else None
            if isinstance(found, Reading):
                name, detail = found.table.weight.name or "", f"shape {found.table.weight.shape}"
                if found.table.shape[1] > LARGEST_DIMENSION:
                    found = Refusal("statistics-too-large", detail, name)
                elif not self._ranks(found):
                    found = Refusal("no-rank-pays", detail, name)
            if found is not None:
                yield found

    def _ranks(self, found: Reading) -> range:
        step = self.rank_multiple or TARGETS[self.target].rank_multiple
        return range(step, min(found.table.shape[1], found.site.shape[0] + 1), step)

    def _choice(self, found: Reading, facts: Facts) -> Choice:
        moments, moment = facts.statistic(found.statistic), found.table.moments().second_moment
        if moments is not None:
            moment = (1 - self.unseen) * moments.second_moment + self.unseen * moment
        ranks, weight = self._ranks(found), found.site.matrix()
        basis = facts.workers.solve(from_input_moment, weight, moment, ranks[-1])
        names = found.table.weight.name or "", found.site.weight.name or ""

        def patch(rank: int, scope: Scope, facts: Facts) -> Patch | Refusal:
            site = site_of(names[1], scope, facts)
            if isinstance(site, Refusal):
                return site
            now = _reading(site, scope, facts)
            if not isinstance(now, Reading) or now.table.weight.name != names[0]:
                return Refusal("superseded", "the table is not read as it was", names[0])
            return _narrowed(now, scope, basis.vectors[:, :rank])

        return Choice(
            frozenset(names),
            next((output.name for output in found.site.uses[0].node.outputs if output.name), ""),
            tuple(
                Option(
                    f"rank {rank}",
                    basis.error(rank),
                    self._cost(found, facts, found.table.shape[1]),
                    self._cost(found, facts, rank),
                    partial(patch, rank),
                )
                for rank in ranks
                if rank <= basis.size
            ),
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
        )

    def _cost(self, found: Reading, facts: Facts, width: int) -> Cost:
        (rows, features), (outputs, _) = found.table.shape, found.site.shape
        made = facts.concrete(found.path[0].outputs[0])
        positions = int(np.prod(made, dtype=np.int64)) // features if made else 1
        item = found.table.tensor.dtype.itemsize
        cost = Cost(
            parameters=(rows + outputs) * width,
            bytes=int((rows + outputs) * width * item),
            macs=positions * outputs * width * len(found.site.uses),
            nodes=len(found.path) + len(found.site.uses),
        )
        # A Gather reads the rows it is asked for and not the table.
        read = replace(cost, bytes=int((positions + outputs) * width * item))
        return replace(cost, seconds=TARGETS[self.target].seconds(read))


def _reading(site: RecurrentSite, scope: Scope, facts: Facts) -> Reading | Refusal | None:
    """Follow a sequence back to the table it is gathered from."""
    sequences = {use.data for use in site.uses}
    readers = {use.node for use in site.uses}
    path: list[ir.Node] = []
    value, alone = site.uses[0].data, len(sequences) == 1
    while True:
        alone &= not value.is_graph_output() and all(use.node in readers for use in value.uses())
        node = value.producer()
        if node is None or node.domain != "" or node.graph is not scope.graph:
            return None
        path.insert(0, node)
        if node.op_type == "Gather":
            break
        perm = node.attributes.get("perm") if node.op_type == "Transpose" else None
        source = node.inputs[0]
        if perm is None or source is None or perm.as_ints()[-1] != len(perm.as_ints()) - 1:
            return None
        value, readers = source, {node}
    weight = node.inputs[0]
    table = None if weight is None else table_of(weight.name or "", scope, facts)
    if not isinstance(table, EmbeddingTable) or table.gathers != (node,):
        return None
    if not alone:
        return Refusal("rows-read-elsewhere", f"of '{node.name}'", table.weight.name or "")
    return Reading(table, site, tuple(path))


def _narrowed(found: Reading, scope: Scope, directions: npt.NDArray[np.float64]) -> Patch:
    table, site = found.table, found.site
    gates, rank = site.stored_shape[:2], directions.shape[1]
    rows = np.asarray(table.tensor.numpy(), np.float64) @ (site.matrix().T @ directions)
    name = table.weight.name
    narrow = Fresh(f"{name}_narrow", ir.tensor(rows.astype(table.tensor.dtype.numpy())))
    stored = np.ascontiguousarray(directions.reshape(*gates, rank), site.tensor.dtype.numpy())
    weight = Fresh(f"{site.weight.name}_narrow", ir.tensor(stored))
    added: list[NewNode] = []
    thin: Operand = narrow
    for node in found.path:
        made = Fresh(f"{node.outputs[0].name}_narrow")
        added.append(NewNode(node.op_type, (thin, *node.inputs[1:]), (made,), node.attributes))
        thin = made
    rewire: dict[ir.Value, ir.Value | Fresh] = {}
    for use in site.uses:
        outputs = tuple(
            Fresh(f"{output.name or use.node.name or use.node.op_type}_{index}")
            for index, output in enumerate(use.node.outputs)
        )
        operands = (thin, weight, *use.node.inputs[2:])
        added.append(NewNode(use.node.op_type, operands, outputs, use.node.attributes))
        rewire |= {old: new for old, new in zip(use.node.outputs, outputs, strict=True) if old.name}
    removed = (*found.path, *(use.node for use in site.uses))
    title = f"{name} and {site.weight.name}: {table.shape[1]} features at rank {rank}"
    return Patch(title, removed[0], {scope: Edit(removed, tuple(added), rewire=rewire)})
