"""What can go when a recurrence is rewritten, and what must stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.passes.recurrence.slices import Unrolled

_PRODUCTS = {"Gemm", "MatMul", "Conv"}


def with_orphans(
    nodes: Iterable[ir.Node],
    kept: Iterable[Operand] = (),
    replaced: Container[ir.Value] = (),
) -> tuple[ir.Node, ...]:
    """Return nodes to be removed, and those of their graph that made something for them alone.

    Parameters
    ----------
    nodes
        Of one graph.
    kept
        Values that what comes instead reads.
    replaced
        Values that nothing reads after the edit, since others stand in their place.
    """
    gone = dict.fromkeys(nodes)
    read = set(kept)
    waiting = [value for node in gone for value in node.inputs if value is not None]
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in gone or node.graph is not next(iter(gone)).graph:
            continue
        if all(o not in read and (o in replaced or not is_read(o, gone)) for o in node.outputs):
            gone[node] = None
            waiting += [value for value in node.inputs if value is not None]
    return tuple(gone)


def is_read(value: ir.Value, gone: Container[ir.Node]) -> bool:
    """Whether anything but nodes that go reads a value."""
    return value.is_graph_output() or any(use.node not in gone for use in value.uses())


def read_outside(
    found: Unrolled, gone: Container[ir.Node]
) -> Iterator[tuple[ir.Value, int, ir.Value]]:
    """Yield what nodes that stay read of slices: the first slice's value, the step, its image."""
    for node in found.nodes:
        for step, copy in enumerate(found.copies):
            image = copy.get(node)
            if image is not None and image in gone:
                for value, output in zip(node.outputs, image.outputs, strict=True):
                    if is_read(output, gone):
                        yield value, step, output


def spared(found: Unrolled, hidden: ir.Value) -> frozenset[ir.Node]:
    """Return nodes of slices that can stay for their readers outside, at little cost.

    These are nodes without a product that follow from the inputs and from the state that every
    step hands out, such as the concatenation of both that an output layer reads as well.

    Parameters
    ----------
    found
        The recurrence.
    hidden
        The value of the first slice that is handed out in every step.
    """
    makers = {output: node for node in found.nodes for output in node.outputs}
    gone = frozenset(found.all_nodes())
    kept: set[ir.Node] = set()
    for value, _, _ in read_outside(found, gone):
        needed: set[ir.Node] = set()
        waiting = [value]
        while waiting:
            read = waiting.pop()
            if read in makers and read is not hidden and makers[read] not in needed:
                needed.add(makers[read])
                waiting += [v for v in found.reads(makers[read]) if v is not None]
        read_here = [v for node in needed for v in found.reads(node) if v is not None]
        states = {v for v in read_here if v in found.states}
        cheap = not any(node.op_type in _PRODUCTS for node in needed)
        if cheap and all(found.states[state] is hidden for state in states):
            kept |= needed
    return frozenset(copy[node] for copy in found.copies for node in kept if node in copy)
