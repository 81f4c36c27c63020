"""The program: its commands and what it says of itself."""

from __future__ import annotations

from typing import Annotated

import typer

import structopt_onnx
from structopt_onnx.cli import (
    benchmark,
    bisect,
    bundle,
    densify,
    explain,
    export,
    inspect,
    optimize,
    passes,
    providers,
    validate,
)

NAME = "structopt-onnx"

_EPILOG = """\b
Exit codes: 0 done, 1 validation failed, 2 wrong usage, 3 a model or data can't be read or run,
4 internal error; 129 hung up, 130 interrupted, 141 nobody reads the output, 143 terminated.
"""

# Plain help: the framed one cuts long options off at 80 columns.
app = typer.Typer(
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {structopt_onnx.__version__}")
        raise typer.Exit


@app.callback(epilog=_EPILOG)
def program(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Optimize ONNX models structurally, prove the result, measure it."""
    del version


for command in (
    optimize, export, explain, validate, benchmark, providers, inspect, passes, bisect, bundle,
    densify,
):  # fmt: skip
    command.register(app)
