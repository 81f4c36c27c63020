"""The parts of a patch: new values, new nodes and the edit of one scope, all plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | ir.Attr


@dataclass(frozen=True, eq=False)
class Fresh:
    """A value that does not exist yet: the output of a new node, or a new constant.

    Parameters
    ----------
    name
        The name wished for; the applier makes it unique.
    tensor
        The data of a new initializer; None for the output of a new node.
    """

    name: str
    tensor: ir.TensorProtocol | None = None


Operand = ir.Value | Fresh | None


@dataclass(frozen=True, eq=False)
class NewNode:
    """A node to be added; creating it touches no graph.

    Parameters
    ----------
    op_type, domain
        The operator.
    inputs
        Existing values, fresh values, or None for an omitted optional input.
    outputs
        The values it makes.
    attributes
        Attribute values by name; an `ir.Attr` is taken as it is.
    """

    op_type: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Fresh, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    domain: str = ""

    def attrs(self) -> list[ir.Attr]:
        """Return the attributes as `ir.Attr`."""
        return [
            value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(name, value)
            for name, value in self.attributes.items()
        ]


@dataclass(frozen=True, eq=False)
class Edit:
    """What a patch does to one scope.

    Parameters
    ----------
    remove
        Nodes taken out. Initializers that nothing reads afterwards go with them.
    add
        Nodes put in, in topological order.
    initializers
        New constants of this scope that the edits of inner scopes read; constants that only
        this edit reads need no mention.
    rewire
        Old value to its replacement, for every use of the old one, in nested scopes too. A
        replacement made by a new node takes over the old value's name, type and shape.
    replace_data
        New data for standing initializers, of the same shape and dtype.
    """

    remove: tuple[ir.Node, ...] = ()
    add: tuple[NewNode, ...] = ()
    initializers: tuple[Fresh, ...] = ()
    rewire: Mapping[ir.Value, ir.Value | Fresh] = field(default_factory=dict)
    replace_data: Mapping[ir.Value, ir.TensorProtocol] = field(default_factory=dict)

    def operands(self) -> Iterator[Operand]:
        """Yield everything the edit reads: new constants, inputs of new nodes, replacements."""
        yield from self.initializers
        for node in self.add:
            yield from node.inputs
        yield from self.rewire.values()


def reading_replacements(
    nodes: Iterable[NewNode], rewire: Mapping[ir.Value, ir.Value | Fresh]
) -> tuple[NewNode, ...]:
    """Return new nodes that read what stands for a replaced value where they named the value.

    Where nodes that feed each other are rewritten together, the later ones are described by
    inputs that the earlier ones no longer make.
    """
    return tuple(
        replace(
            node,
            inputs=tuple(rewire.get(i, i) if isinstance(i, ir.Value) else i for i in node.inputs),
        )
        for node in nodes
    )
