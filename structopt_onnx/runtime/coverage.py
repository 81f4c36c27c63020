"""How much of a model a mobile provider would take, predicted from operator lists.

Nothing is run: onnxruntime's mobile checker and its partitioning of the graph are asked about
operators by name. Attributes, constants and shapes may still make a provider turn a node down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir.passes.common as onnx_ir_passes

from structopt_onnx.model.encoding import Skeleton
from structopt_onnx.model.protos import scopes
from structopt_onnx.rewriting.target import ListedTarget

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.rewriting.target import Target

_COREML_LIST = "coreml_supported_mlprogram_ops.md"


@dataclass(frozen=True)
class Coverage:
    """What a target's provider would take of a model, by operators alone.

    Parameters
    ----------
    target
        Name of the target.
    nodes
        Operators in the graph and its subgraphs, `Constant` nodes aside.
    supported
        Those that the provider lists.
    partitions
        Connected pieces that they form; between two of them the CPU takes over.
    unsupported
        The operators that are not listed, as ``domain:Name``, sorted.
    free_dimensions
        Whether inputs have dimensions without a size: most of these providers want them fixed.
    basis
        Always ``predicted``: nothing was run.
    """

    target: str
    nodes: int
    supported: int
    partitions: int
    unsupported: tuple[str, ...] = ()
    free_dimensions: bool = False
    basis: str = "predicted"

    @property
    def share(self) -> float:
        """The share of the nodes that is supported; 1 for an empty graph."""
        return self.supported / self.nodes if self.nodes else 1.0


def coverage(model: ir.Model, target: Target) -> Coverage | None:
    """Predict what a target's provider would take of a model.

    For `nnapi` and `coreml` this is what onnxruntime's ``usability_checker`` reports, with its
    own lists; for other listed targets its partitioning is run with this package's list.
    Dimensions count as fixed.

    Parameters
    ----------
    model
        Not changed. Its `Constant` nodes count as initializers, as in a session.
    target
        Where it will run.

    Returns
    -------
    Coverage or None
        None for a target that has every operator.
    """
    if not isinstance(target, ListedTarget):
        return None
    # A checker for mobile packaging has no place in the import of a session.
    from onnxruntime.tools.mobile_helpers import usability_checker as checker  # noqa: PLC0415

    clone = model.clone()
    onnx_ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(clone)
    proto = Skeleton(clone, sparse=False).proto  # the checkers know no sparse initializers
    _spell_out_transposes(proto)
    if target.name == "nnapi":
        found = checker.check_nnapi_partitions(proto, require_fixed_input_sizes=False)
    elif target.name == "coreml":
        found = checker.check_coreml_partitions(
            proto, require_fixed_input_sizes=False, config_filename=_COREML_LIST
        )
    else:
        listed = _Listed(target)
        found = checker.check_partitioning(proto.graph, listed, require_fixed_input_sizes=False)
    return Coverage(
        target.name,
        found.num_nodes,
        found.num_supported_nodes,
        found.num_partitions,
        tuple(sorted(found.unsupported_ops)),
        any(
            not dim.HasField("dim_value")
            for value in proto.graph.input
            for dim in value.type.tensor_type.shape.dim
        ),
    )


class _Listed:
    """A list of operators in the shape that onnxruntime's partitioning asks for."""

    def __init__(self, target: ListedTarget) -> None:
        self._operators = target.operators

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        own = node.domain in {"", "ai.onnx"}
        return (node.op_type if own else f"{node.domain}:{node.op_type}") in self._operators

    def get_caveats(self) -> list[Any]:
        return []


def _spell_out_transposes(proto: onnx.ModelProto) -> None:
    """Give every Transpose an attribute: the checker looks at the first without asking."""
    for scope in scopes(proto):
        for node in scope.node:
            if node.op_type == "Transpose" and not node.attribute:
                node.attribute.add(name="perm", type=onnx.AttributeProto.INTS)
