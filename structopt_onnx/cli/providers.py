"""The command `providers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structopt_onnx
from structopt_onnx.cli import deployment_options, options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.providers import render_provider_list

if TYPE_CHECKING:
    import typer

_EPILOG = """\b
Examples:
  structopt-onnx providers
  structopt-onnx providers cpu qnn xnnpack=node_modules --json
"""


def providers(
    names: deployment_options.ProviderNames = None,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Say which execution providers can really be used on this machine.

    A tiny model is run on each, in a process of its own, and its values are compared with the
    CPU's. --seed and --threads change nothing here.
    """
    del seed, threads
    terminal = Terminal(json, quiet)
    with terminal.progress("probing"):
        found = structopt_onnx.providers(tuple(names or ()))
    terminal.tell(found, lambda: render_provider_list(found))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(providers)
