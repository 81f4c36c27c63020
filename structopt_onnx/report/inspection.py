"""What `inspect` found, as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from rich.console import Group

from structopt_onnx.report.figures import count, name, plural
from structopt_onnx.report.layout import bullets, line, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from structopt_onnx.rewriting.cost import Cost

_MOST_TENSORS = 12
_MOST_OPERATORS = 16
_OPEN = re.compile(r"[^\d\s,\[\]]")  # a shape with anything but numbers in it


class _Tensor(Protocol):
    """A `structopt_onnx.api.inspect.TensorRow`."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def zeros(self) -> float | None: ...
    @property
    def scope(self) -> str: ...
    @property
    def encoding(self) -> str | None: ...
    @property
    def saved(self) -> int: ...
    @property
    def stored(self) -> str: ...


class _Inspection(Protocol):
    """A `structopt_onnx.Inspection`."""

    @property
    def source(self) -> str: ...
    @property
    def producer(self) -> str: ...
    @property
    def ir_version(self) -> int: ...
    @property
    def opsets(self) -> Mapping[str, int]: ...
    @property
    def inputs(self) -> tuple[tuple[str, str, str], ...]: ...
    @property
    def outputs(self) -> tuple[tuple[str, str, str], ...]: ...
    @property
    def cost(self) -> Cost: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def operators(self) -> Mapping[str, int]: ...
    @property
    def tensors(self) -> Sequence[_Tensor]: ...
    @property
    def metadata(self) -> tuple[str, ...]: ...
    @property
    def functions(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def render_inspection(found: _Inspection, *, made_up: bool = False) -> RenderableType:
    """Lay out what a model is made of: costs first, then interface, operators and weights.

    Parameters
    ----------
    found
        What `structopt_onnx.inspect` returned.
    made_up
        Whether the inputs it was run on were made up, which matters where sizes are open.
    """
    return Group(*_parts(found, made_up))


def _parts(found: _Inspection, made_up: bool) -> Iterator[RenderableType]:
    cost = found.cost
    yield line(
        f"{found.source}: {count(found.file_bytes)} bytes, {count(cost.parameters)} parameters, "
        f"{count(cost.macs)} MACs, {plural(cost.nodes, 'node')}",
        "bold",
    )
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in found.opsets.items()
    )
    ran = not any(note.startswith("not run") for note in found.notes)
    if made_up and ran and any(_OPEN.search(shape) for _, _, shape in found.inputs):
        yield line(
            "note: MACs are of made-up sizes of the dimensions that the model leaves open; "
            "give --data for real ones",
            "yellow",
        )
    yield line(f"IR version {found.ir_version}; opsets: {opsets}; by {found.producer or 'unknown'}")
    ports = [("input", *port) for port in found.inputs] + [
        ("output", *port) for port in found.outputs
    ]
    yield section("Interface", table(("", "name", "type", "shape"), ports))
    operators = sorted(found.operators.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{number} {operator}" for operator, number in operators[:_MOST_OPERATORS])
    more = len(operators) - _MOST_OPERATORS
    yield section("Operators", line(listed + (f", and {more} more kinds" if more > 0 else "")))
    if found.tensors:
        yield section(*_tensors(found.tensors))
    if found.functions:
        yield section("Functions", line(", ".join(found.functions)))
    if found.metadata:
        yield section("Metadata keys", line(", ".join(found.metadata)))
    if found.notes:
        yield section("Notes", bullets(found.notes))


def _tensors(tensors: Sequence[_Tensor]) -> tuple[str, RenderableType]:
    rows = [
        (
            name(row.name),
            row.dtype,
            row.shape,
            count(row.bytes),
            "-" if row.zeros is None else f"{100 * row.zeros:.1f}%",
            row.stored,
            row.encoding or ("-" if row.stored == "part" else "dense"),
            count(row.saved),
            row.scope,
        )
        for row in tensors[:_MOST_TENSORS]
    ]
    some = len(tensors)
    title = f"Weights: {some}" if some <= _MOST_TENSORS else f"Weights: the largest of {some}"
    sizes = ("dense bytes", "zeros", "stored as", "smallest as", "saves")
    return title, table(("name", "type", "shape", *sizes, "where"), rows, (3, 4, 7))
