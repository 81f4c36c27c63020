"""cancel-transposes: operators between two changes of layout run in the layout around them.

What it does
    Takes all values that pointwise operators, concatenations, reductions and pads connect, and
    holds them in another axis order where fewer transposes are left then. Constants are stored
    turned, axes are renumbered. Transposes that undo each other meet and go.

Why
    Models from frameworks with channels last convolve with channels first, and turn every
    activation twice per layer; a transpose moves as much memory as the operator it serves.

Leaves alone
    Components where turning brings as many transposes as it takes away; operators bound to an
    axis order, and operands of lower rank that are not stored.

Exactness
    ROUNDING: reductions add in another order; all else keeps its bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.layout import Component, Layout, Perm, inverse, perm_of
from structopt_onnx.passes.convolution.turning import Turning
from structopt_onnx.rewriting.passes import Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True)
class CancelTransposes(Pass):
    """Has no options."""

    name: ClassVar[str] = "cancel-transposes"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    refusals: ClassVar[dict[str, str]] = {
        "no-fewer-transposes": "what is around it needs as many transposes in any other order",
    }

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield a patch per component that is better turned."""
        if sum(node.op_type == "Transpose" for node in scope.graph) < _FEWEST:
            return
        layout = Layout(scope, facts)
        for component in layout.components:
            options = [Turning(layout, component, perm) for perm in _perms(component, facts)]
            best = max(options, key=lambda option: option.saved, default=None)
            if best is None:
                continue
            if best.saved > 0:
                yield best.patch()
            elif component.nodes and len(options) > 0:
                first = component.nodes[0]
                yield Refusal(
                    "no-fewer-transposes", f"{len(component.nodes)} operators", first.name or ""
                )


_FEWEST = 2


def _perms(component: Component, facts: Facts) -> list[Perm]:
    """List the orders worth trying: those that a transpose into or out of the component undoes."""
    found: dict[Perm, None] = {}
    for value in component.values:
        entering = perm_of(value.producer(), facts)
        if entering is not None:
            found[entering] = None
        for use in value.uses():
            leaving = perm_of(use.node, facts)
            if leaving is not None:
                found[inverse(leaving)] = None
    return [perm for perm in found if perm != tuple(range(len(perm)))]
