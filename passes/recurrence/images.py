"""Images: what stands in one step for the nodes and values of the first slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.chains import signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.chains import Chain

Edge = tuple["ir.Node", int]


def reads(node: ir.Node, roles: Mapping[Edge, ir.Value]) -> tuple[ir.Value | None, ...]:
    """Return what a node of the first slice reads, with stand-ins where it has several roles."""
    return tuple(roles.get((node, index), value) for index, value in enumerate(node.inputs))


@dataclass
class Image:
    """The first slice mapped onto one step.

    Parameters
    ----------
    image
        What stands for a value.
    made
        The values that the first slice makes.
    roles
        Stand-ins for values of several roles.
    strict
        Whether what is read from outside must be the same along every edge. It may differ while
        it is not yet known which reads are of states.
    facts
        Knows the constants.
    chain, number
        The steps, and which of them this is.
    copy
        What stands for a node.
    taken
        Nodes that stand for one already.
    """

    image: dict[ir.Value, ir.Value]
    made: frozenset[ir.Value]
    roles: Mapping[Edge, ir.Value]
    strict: bool
    facts: Facts
    chain: Chain
    number: int
    copy: dict[ir.Node, ir.Node] = field(default_factory=dict)
    taken: set[ir.Node] = field(default_factory=set)

    def admits(self, node: ir.Node, candidate: ir.Node) -> bool:
        """Whether `candidate` can stand for `node` here."""
        if node.op_type != candidate.op_type or len(node.inputs) != len(candidate.inputs):
            return False
        pairs = zip(reads(node, self.roles), candidate.inputs, strict=True)
        if not all(self._fits(a, b) for a, b in pairs):
            return False
        return signature(node) is not None and signature(node) == signature(candidate)

    def _fits(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        if a is None or b is None:
            return a is b
        if a in self.made:
            return self.image.get(a) is b
        if self.facts.tensor(a) is not None:
            return a is b or (not self.strict and self.chain.step(b) == 0)
        return not self.strict or self.image.get(a, b) is b

    def bind(self, node: ir.Node, candidate: ir.Node) -> None:
        """Let `candidate` stand for `node`."""
        self.copy[node] = candidate
        self.taken.add(candidate)
        for a, b in zip(reads(node, self.roles), candidate.inputs, strict=True):
            if a is not None and b is not None and self.facts.tensor(a) is None:
                self.image.setdefault(a, b)
        for a, b in zip(node.outputs, candidate.outputs, strict=True):
            self.image[a] = b

    def find(self, node: ir.Node) -> ir.Node | None:
        """Find the node that stands for `node` among the readers of what stands for its inputs.

        The one whose other inputs look alike comes first.
        """
        read = reads(node, self.roles)
        known = [
            (i, self.image[v])
            for i, v in enumerate(read)
            if v is not None and v in self.made and v in self.image
        ]
        found = [
            use.node
            for index, value in known[:1] or self._anchored(node)
            for use in value.uses()
            if use.idx == index
            and use.node not in self.taken
            and use.node.graph is value.graph
            and self.admits(node, use.node)
        ]
        if len(found) > 1:
            found.sort(key=lambda candidate: -_likeness(node, candidate))
        return found[0] if found else None

    def _anchored(self, node: ir.Node) -> list[tuple[int, ir.Value]]:
        """Return where a node that starts the step reads a state, and what that is here."""
        here = [
            (index, series[self.number])
            for series in self.chain.anchors
            for index, value in enumerate(node.inputs)
            if value is series[0] and self.number < len(series)
        ]
        return [(index, value) for index, value in here if value is not None]


def _likeness(node: ir.Node, candidate: ir.Node) -> int:
    """Count the inputs whose producers do the same on the same constants."""
    return sum(_alike(a, b) for a, b in zip(node.inputs, candidate.inputs, strict=True))


def _alike(a: ir.Value | None, b: ir.Value | None) -> bool:
    one = a.producer() if a is not None else None
    other = b.producer() if b is not None else None
    if one is None or other is None or signature(one) != signature(other):
        return False
    weights = [(x, y) for x, y in zip(one.inputs, other.inputs, strict=True)]
    return all(x is y for x, y in weights if x is not None and x.is_initializer())


def mapped(
    chain: Chain,
    nodes: tuple[ir.Node, ...],
    found: Image,
    *,
    partial: bool = False,
) -> Image | None:
    """Map the first slice onto a step; not all of it need be there where `partial` is true."""
    product, here = chain.products[0], chain.products[found.number]
    if not found.admits(product, here):
        return None
    found.bind(product, here)
    for node in nodes:
        if node is product:
            continue
        candidate = found.find(node)
        if candidate is not None:
            found.bind(node, candidate)
        elif not partial:
            return None
    return found
