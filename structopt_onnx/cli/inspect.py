"""The command `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.figures import count, name
from structopt_onnx.report.layout import bullets, line, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer
    from rich.console import RenderableType

    from structopt_onnx.api.inspect import Inspection

_MOST_TENSORS = 12
_MOST_OPERATORS = 16

_EPILOG = """\b
Examples:
  structopt-onnx inspect model.onnx
  structopt-onnx inspect model.onnx --json | jq .cost.macs
"""


def inspect(
    source: options.Source,
    *,
    data: options.Data = None,
    library: options.Libraries = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Say what a model is made of and what it costs.

    It is run once, so that operations on dynamic dimensions can be counted.
    """
    terminal = Terminal(json, quiet)
    with terminal.progress("inspecting"):
        found = structopt_onnx.inspect(
            source, data=data, seed=seed, threads=threads, libraries=tuple(library or ())
        )
    terminal.tell(found, lambda: Group(*_parts(found)))


def _parts(found: Inspection) -> Iterator[RenderableType]:
    cost = found.cost
    yield line(
        f"{found.source}: {count(found.file_bytes)} bytes, {count(cost.parameters)} parameters, "
        f"{count(cost.macs)} MACs, {count(cost.nodes)} nodes",
        "bold",
    )
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in found.opsets.items()
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
        yield section(*_tensors(found))
    if found.functions:
        yield section("Functions", line(", ".join(found.functions)))
    if found.metadata:
        yield section("Metadata keys", line(", ".join(found.metadata)))
    if found.notes:
        yield section("Notes", bullets(found.notes))


def _tensors(found: Inspection) -> tuple[str, RenderableType]:
    rows = [
        (
            name(row.name),
            row.dtype,
            row.shape,
            count(row.bytes),
            "-" if row.zeros is None else f"{100 * row.zeros:.1f}%",
            row.scope,
        )
        for row in found.tensors[:_MOST_TENSORS]
    ]
    some = len(found.tensors)
    title = f"Weights: {some}" if some <= _MOST_TENSORS else f"Weights: the largest of {some}"
    return title, table(("name", "type", "shape", "bytes", "zeros", "where"), rows, (3, 4))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(inspect)
