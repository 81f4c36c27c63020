"""What a model promises to its callers: names, order, types and dimensions of what goes in and out.

An optimized model must keep all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

Dim = int | str | None
_CONSTANTS_FROM = 4  # IR version from which an initializer need not be an input


class Port(Protocol):
    """One input or output, as a session tells it."""

    @property
    def name(self) -> str:
        """Name in the graph."""

    @property
    def type(self) -> str:
        """Type in onnxruntime's words, such as "tensor(float)"."""


@dataclass(frozen=True)
class DeclaredPort:
    """One input or output as the model declares it.

    Attributes
    ----------
    name, type
        Name and type in onnxruntime's words; "" for a type that is not declared.
    shape
        Dimensions: a number, a name, or None for an unnamed one; None for an unknown rank.
    """

    name: str
    type: str
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class Interface:
    """What a model takes and gives, in order.

    Attributes
    ----------
    inputs, outputs
        Inputs that must be fed (without those that have an initializer) and outputs.
    overridable
        Inputs with an initializer that a caller may override (IR version 4 and later; before,
        such inputs are constants and no promise).
    """

    inputs: tuple[DeclaredPort, ...]
    outputs: tuple[DeclaredPort, ...]
    overridable: tuple[DeclaredPort, ...] = ()

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Interface that a model declares."""
        graph = model.graph
        constants = set(graph.initializers)
        with_initializer = [_port(value) for value in graph.inputs if value.name in constants]
        return cls(
            inputs=tuple(_port(value) for value in graph.inputs if value.name not in constants),
            outputs=tuple(_port(value) for value in graph.outputs),
            overridable=tuple(with_initializer) if model.ir_version >= _CONSTANTS_FROM else (),
        )

    def differences(self, candidate: Interface) -> tuple[str, ...]:
        """Every way in which another model's interface is not this one; a line each.

        Dimensions must be equal, names included; only where this model leaves an output's rank or
        dimension open may the candidate state it.
        """
        lines = list(port_differences("input", self.inputs, candidate.inputs))
        lines += port_differences("output", self.outputs, candidate.outputs)
        lines += _shape_differences("input", self.inputs, candidate.inputs)
        lines += _shape_differences("output", self.outputs, candidate.outputs)
        found = {port.name for port in candidate.overridable}
        lines += [
            f"input {port.name!r} has a default and can be overridden; in the candidate it is gone"
            for port in self.overridable
            if port.name not in found
        ]
        return tuple(lines)


def port_differences(
    kind: str, reference: Sequence[Port], candidate: Sequence[Port]
) -> tuple[str, ...]:
    """Differences in names, order and types that make two models no twins.

    Parameters
    ----------
    kind
        "input" or "output", for the lines.
    reference, candidate
        Ports of the two models, in order.

    Returns
    -------
    lines
        One line per difference; empty where there is none.
    """
    types = {port.name: port.type for port in candidate}
    expected = [port.name for port in reference]
    found = [port.name for port in candidate]
    lines = [f"{kind} {name!r} is missing" for name in expected if name not in types]
    lines += [f"{kind} {name!r} is new" for name in found if name not in expected]
    if not lines and expected != found:
        lines.append(f"{kind}s are in another order: {', '.join(found)}")
    for port in reference:
        other = types.get(port.name, port.type)
        if port.type and other != port.type:
            lines.append(f"{kind} {port.name!r} has type {other}, not {port.type}")
    return tuple(lines)


def _shape_differences(
    kind: str, reference: Sequence[DeclaredPort], candidate: Sequence[DeclaredPort]
) -> tuple[str, ...]:
    shapes = {port.name: port.shape for port in candidate}
    return tuple(
        f"{kind} {port.name!r} has shape {_text(shapes[port.name])}, not {_text(port.shape)}"
        for port in reference
        if port.name in shapes
        and shapes[port.name] != port.shape
        and not (kind == "output" and _refines(shapes[port.name], port.shape))
    )


def _refines(shape: tuple[Dim, ...] | None, declared: tuple[Dim, ...] | None) -> bool:
    if declared is None:
        return True
    if shape is None or len(shape) != len(declared):
        return False
    return all(known is None or dim == known for dim, known in zip(shape, declared, strict=True))


def _text(shape: tuple[Dim, ...] | None) -> str:
    if shape is None:
        return "of unknown rank"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def _port(value: ir.Value) -> DeclaredPort:
    shape = None
    if value.shape is not None:
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return DeclaredPort(value.name or "", _type_text(value.type), shape)


def _type_text(declared: ir.TypeProtocol | None) -> str:
    if isinstance(declared, ir.SequenceType):
        return f"seq({_type_text(declared.elem_type)})"
    if isinstance(declared, ir.OptionalType):
        return f"optional({_type_text(declared.elem_type)})"
    if isinstance(declared, (ir.TensorType, ir.SparseTensorType)):
        kind = "sparse_tensor" if isinstance(declared, ir.SparseTensorType) else "tensor"
        return f"{kind}({declared.dtype.name.lower()})"
    return ""
