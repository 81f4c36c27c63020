"""The command `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.inspection import render_inspection

if TYPE_CHECKING:
    import typer

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
    terminal.tell(found, lambda: render_inspection(found, made_up=data is None))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(inspect)
