"""Work that every step does for itself, done once for the rows of all steps.

Steps of a recurrence, written out, also do work that feeds no state: an output layer on each
hidden state, an input layer on each input. The rows of all steps, one below the other, go
through the same nodes at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence.batching import Batch
from structopt_onnx.passes.recurrence.chains import signature
from structopt_onnx.passes.recurrence.collecting import Rewiring, Stack, readers
from structopt_onnx.passes.recurrence.plumbing import Plumbing
from structopt_onnx.passes.recurrence.readings import entry
from structopt_onnx.passes.recurrence.removal import is_read, with_orphans

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from structopt_onnx.model.edit import Fresh
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.batching import Nodes, Values
    from structopt_onnx.passes.recurrence.collecting import Readers
    from structopt_onnx.passes.recurrence.sizes import Sizes


def batched(
    members: Sequence[ir.Node],
    scope: Scope,
    facts: Facts,
    sizes: Sizes,
    fixed: Container[ir.Node],
) -> Patch | None:
    """Describe how products with one weight are done at once; None where they can't be.

    Parameters
    ----------
    members
        Products that do not depend on each other.
    scope, facts, sizes
        Where they are, and what is known.
    fixed
        Nodes that another rewrite is about.
    """
    ordered = _in_order(members, sizes)
    if ordered is None:
        return None
    plumbing = Plumbing(sizes.opset)
    batch = Batch(facts, sizes, fixed, plumbing)
    found = batch.grow(ordered)
    ends: list[tuple[Values, Fresh]] = []
    waiting = [found] if found is not None else []
    while waiting:
        values, rows = waiting.pop()
        after = [grown for nodes in _next(values) if (grown := batch.grow(nodes)) is not None]
        waiting += after
        ends.append((values, rows))
    if not ends:
        return None
    gone = frozenset(batch.gone)
    if not _is_closed(gone) or any(
        isinstance(v, ir.Value) and v.producer() in gone for n in plumbing.nodes for v in n.inputs
    ):
        return None
    return _handed_out(batch, ends, Patch(_title(ordered), ordered[0], {scope: Edit()}))


def _title(members: Nodes) -> str:
    return f"{members[0].op_type} of {len(members)} steps is done at once"


def _handed_out(batch: Batch, ends: Sequence[tuple[Values, Fresh]], patch: Patch) -> Patch | None:
    """Give those who read the results of single steps their rows."""
    rewiring, sizes, gone = Rewiring(batch.plumbing), batch.sizes, frozenset(batch.gone)
    collected: dict[ir.Node, None] = {}
    for values, rows in ends:
        if any(is_read(value, gone) for value in values):
            width = (sizes.dims(values[0]) or (0, 0))[1]
            if not isinstance(width, int):
                return None
            wanted = readers(values, gone, sizes)
            _hand_out(values, wanted, rows, width, rewiring)
            collected.update((n, None) for c in wanted.collections for n in c.nodes)
    edit = Edit((), tuple(batch.plumbing.nodes), rewire=rewiring.changes)
    kept = {value for values, _ in ends for value in values} | set(rewiring.changes)
    # Nodes of which only some results were wanted here go when nothing else reads them.
    leaving = {**batch.gone, **collected}
    standing = [
        node
        for node in batch.gone
        if all(o in kept or not is_read(o, leaving) for o in node.outputs)
    ]
    removed = with_orphans((*standing, *collected), edit.operands(), edit.rewire)
    (scope,) = patch.edits
    return replace(patch, edits={scope: replace(edit, remove=removed)})


def _is_closed(region: frozenset[ir.Node]) -> bool:
    """Whether nothing that is computed from the nodes' results outside comes back to them."""
    home = next(iter(region)).graph
    after = (use.node for node in region for o in node.outputs for use in o.uses())
    seen: set[ir.Node] = set(after) - region
    waiting = list(seen)
    while waiting:
        node = waiting.pop()
        if node.graph is not home:
            return False  # what a branch captures comes back through its node
        for use in (use for output in node.outputs for use in output.uses()):
            if use.node in region:
                return False
            if use.node not in seen:
                seen.add(use.node)
                waiting.append(use.node)
    return True


def _hand_out(values: Values, wanted: Readers, rows: Fresh, width: int, rewiring: Rewiring) -> None:
    plumbing, name = rewiring.plumbing, values[0].name or "y"
    order = tuple(range(len(values)))
    if wanted.collections:
        by_step = plumbing.reshape(rows, (len(values), -1, width), f"{name}_by_step")
        stack = Stack(by_step, order, (width,), name)
        for collection in wanted.collections:
            rewiring.put(collection.result, stack.collect(collection, plumbing))
    if wanted.single:
        parts = plumbing.split(rows, [f"{name}_{k}" for k in order], 0)
        for step in wanted.single:
            rewiring.put(values[step], parts[step])


def _next(values: Values) -> Iterator[Nodes]:
    """Yield readers of the values that do the same in each step."""
    for use in values[0].uses():
        kind = signature(use.node)
        found = [
            next((u.node for u in v.uses() if u.idx == use.idx and signature(u.node) == kind), None)
            for v in values
        ]
        nodes = tuple(node for node in found if node is not None)
        if kind is not None and len(set(nodes)) == len(values):
            yield nodes


def _in_order(members: Sequence[ir.Node], sizes: Sizes) -> Nodes | None:
    """Order products by the entry of one tensor that they, or what they join, read."""
    leaves = [_leaves(node) for node in members]
    width = min(len(leaf) for leaf in leaves)
    best: dict[ir.Node, int] = {}
    for position in range(width):
        entries = [entry(leaf[position], sizes) for leaf in leaves]
        found = [e for e in entries if e is not None]
        same = len({e[:2] for e in found}) == 1 and len({e[2] for e in found}) == len(members)
        if same and len(found) == len(members):
            best = {n: e[2] for n, e in zip(members, entries, strict=True) if e is not None}
    return tuple(sorted(members, key=best.__getitem__)) if best else None


def _leaves(node: ir.Node) -> list[ir.Value]:
    """Return what a product reads, seen through a concatenation."""
    if node.op_type == "Concat":
        return [v for v in node.inputs if v is not None]
    value = next(v for v in node.inputs if v is not None)
    producer = value.producer()
    if producer is not None and producer.op_type == "Concat":
        return [v for v in producer.inputs if v is not None]
    return [value]
