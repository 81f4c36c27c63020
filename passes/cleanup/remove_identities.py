"""remove-identities: what reads an `Identity`, or an idle `Cast`, reads its input instead.

What it does
    Rewires the readers of an `Identity`, and of a `Cast` to the type that its input already has,
    to the input and drops the node, in every scope.

Why
    An identity costs a node, and hides its input from passes that look for neighbours. The
    field's libraries do this too, but fail on branches that hand out one outer value twice.

Leaves alone
    Identities that make a graph output: their name is the interface.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True, eq=False)
class Found:
    """An identity and the value that it hands on."""

    node: ir.Node
    source: ir.Value


@dataclass(frozen=True)
class RemoveIdentities(NodePass[Found]):
    """Has no options."""

    name: ClassVar[str] = "remove-identities"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    roots: ClassVar[frozenset[str]] = frozenset({"Cast", "Identity"})
    refusals: ClassVar[dict[str, str]] = {
        "identity-makes-output": "the result is a graph output, whose name must stay",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Found | Refusal | None:
        """Find what an identity, or a chain of them, passes on."""
        del scope
        if not _is_idle(node, facts):
            return None
        source = node.inputs[0]
        while source is not None and (producer := source.producer()) is not None:
            if not _is_idle(producer, facts):
                break
            source = producer.inputs[0]
        if source is None:
            return None
        if node.outputs[0].is_graph_output():
            detail = f"it makes '{node.outputs[0].name}'"
            return Refusal("identity-makes-output", detail, node.name or "")
        return Found(node, source)

    def rewrite(self, scope: Scope, facts: Facts, match: Found) -> Patch:
        """Describe the edit."""
        del facts
        result = match.node.outputs[0]
        edit = Edit(remove=(match.node,), rewire={result: match.source})
        return Patch(f"{result.name} is {match.source.name}", match.node, {scope: edit})


def _is_idle(node: ir.Node, facts: Facts) -> bool:
    if node.domain != "" or node.op_type != "Cast":
        return node.domain == "" and node.op_type == "Identity"
    source, to = node.inputs[0], node.attributes["to"]
    return source is not None and not to.is_ref() and facts.dtype(source) == to.as_int()
