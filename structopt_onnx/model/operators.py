"""How often each operator occurs in a model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from structopt_onnx.model.scope import scopes

if TYPE_CHECKING:
    import onnx_ir as ir


def operator_counts(model: ir.Model) -> dict[str, int]:
    """Count nodes per operator, subgraphs and functions included.

    Returns
    -------
    dict
        Numbers by ``Name``, or ``domain::Name`` outside of ONNX's own domain; most frequent first.
    """
    counts = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for scope in scopes(model)
        for node in scope.graph
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
