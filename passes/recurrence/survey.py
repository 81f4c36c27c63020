"""The survey: every unrolled recurrence of a graph, with its cell or with what is in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.passes.cleanup.folding import is_random
from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
from structopt_onnx.passes.recurrence.cells import cell, is_projected
from structopt_onnx.passes.recurrence.first_step import with_first_step
from structopt_onnx.passes.recurrence.fused import Fused
from structopt_onnx.passes.recurrence.gates import States
from structopt_onnx.passes.recurrence.lone_step import folded_pairs
from structopt_onnx.passes.recurrence.rules import NoForm
from structopt_onnx.passes.recurrence.slices import unrolled
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.chains import Products
    from structopt_onnx.passes.recurrence.sizes import Sizes
    from structopt_onnx.passes.recurrence.slices import Unrolled

_CHOOSES = {"ArgMax", "ArgMin", "TopK", "Hardmax", "NonZero"}


@dataclass(frozen=True)
class Recurrence:
    """An unrolled recurrence.

    Parameters
    ----------
    found
        Its slices.
    fused
        Where ONNX has its cell: how it is emitted.
    refusal
        Why it must be left alone.
    """

    found: Unrolled
    fused: Fused | None = None
    refusal: Refusal | None = None

    def nodes(self) -> Iterator[ir.Node]:
        """Yield the nodes it is made of."""
        yield from self.found.all_nodes()
        if self.fused is not None:
            yield from self.fused.algebra.inner


def survey(products: Products, facts: Facts, sizes: Sizes) -> tuple[Recurrence, ...]:
    """Find the unrolled recurrences behind products, each node in one of them at most."""
    order = products.order
    seen: set[ir.Node] = set()
    recurrences: list[Recurrence] = []
    for chain in products.chains:
        found = None if chain.products[-1] in seen else unrolled(chain, facts, order.position)
        if found is not None and seen.isdisjoint(found.all_nodes()):
            seen.update(found.all_nodes())
            recurrences.append(_judged(found, facts, sizes))
    for fused in folded_pairs(products, facts, sizes):
        if seen.isdisjoint(fused.found.all_nodes()):
            seen.update(fused.found.all_nodes())
            recurrences.append(Recurrence(fused.found, fused))
    return tuple(recurrences)


def _judged(found: Unrolled, facts: Facts, sizes: Sizes) -> Recurrence:
    where = found.chain.products[0].name or ""
    for node in found.nodes:
        what = f"{node.op_type} '{node.name}' lies in every step"
        if node.op_type in _CHOOSES:
            return Recurrence(found, refusal=Refusal("data-dependent-feedback", what, where))
        if is_random(node):
            return Recurrence(found, refusal=Refusal("node-may-be-random", what, where))
        if node.op_type == "Where" and sizes.contents(node.outputs[0]) is None:
            return Recurrence(found, refusal=Refusal("mask-is-no-prefix", what, where))
    algebra = SliceAlgebra(found, facts, sizes)
    states = _states(found, algebra)
    if states is None:
        return Recurrence(found)
    if is_projected(states):
        detail = "the next state is a projection of the cell's output"
        return Recurrence(found, refusal=Refusal("projected-state", detail, where))
    known = cell(states)
    fused = None if known is None else Fused(found, algebra, known)
    if fused is None or not fused.is_single() or not fused.covers_reads():
        return Recurrence(found)
    return Recurrence(found, with_first_step(fused, states.next))


def _states(found: Unrolled, algebra: SliceAlgebra) -> States | None:
    following = {}
    for state, value in found.states.items():
        try:
            row = algebra.row(value)
        except NoForm:
            return None
        if len(row) != 1:
            return None
        following[state] = row[0]
    return States(following, algebra.inputs())
