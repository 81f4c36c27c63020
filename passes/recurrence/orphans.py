"""Nodes that nothing reads any more once others are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand


def with_orphans(nodes: Iterable[ir.Node], kept: Iterable[Operand] = ()) -> tuple[ir.Node, ...]:
    """Return nodes to be removed, and those of their graph that made something for them alone.

    Parameters
    ----------
    nodes
        Of one graph.
    kept
        Values that what comes instead reads.
    """
    gone = dict.fromkeys(nodes)
    still = set(kept)
    pending = [value for node in gone for value in node.inputs]
    while pending:
        value = pending.pop()
        maker = None if value is None else value.producer()
        if maker is None or maker in gone or maker.graph is not next(iter(gone)).graph:
            continue
        unread = all(
            output not in still
            and not output.is_graph_output()
            and all(use.node in gone for use in output.uses())
            for output in maker.outputs
        )
        if unread:
            gone[maker] = None
            pending += maker.inputs
    return tuple(gone)
