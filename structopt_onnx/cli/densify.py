"""The command `densify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.files import refuse_dash
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.figures import count, plural
from structopt_onnx.report.layout import line

if TYPE_CHECKING:
    import typer

_EPILOG = """\b
Examples:
  structopt-onnx densify sparse.onnx dense.onnx
"""


def densify(
    source: options.Source,
    output: options.Output,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Make the sparse and encoded tensors of a model dense.

    For tools that can not read them. --seed and --threads change nothing here.
    """
    del seed, threads
    terminal = Terminal(json, quiet)
    refuse_dash(output)
    with terminal.progress("densifying"):
        result = structopt_onnx.densify(source, output)
    sizes = f"{count(result.bytes_before)} -> {count(result.bytes_after)} bytes"
    tensors = plural(result.count, "sparse tensor")
    proved = "same outputs when run" if result.verified else "not run: no inputs could be made up"
    text = f"{source} -> {output}: {tensors} made dense, {sizes}; {proved}"
    terminal.tell(result, lambda: line(text))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(densify)
