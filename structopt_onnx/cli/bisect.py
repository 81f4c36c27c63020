"""The command `bisect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.bisection import render_bisection

if TYPE_CHECKING:
    import typer

_EPILOG = """\b
Examples:
  structopt-onnx bisect model.onnx small.onnx --calibration samples.npz
  structopt-onnx bisect model.onnx small.onnx --calibration samples.npz --max-error 0.01
  structopt-onnx bisect model.onnx exact.onnx --data test.npz
"""


def bisect(
    source: options.Source,
    optimized: options.Optimized,
    *,
    data: options.CompareOn = None,
    calibration: options.Recalled = None,
    max_error: options.Recorded = None,
    library: options.Libraries = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Find the first rewrite that takes a model's error over a limit.

    The rewrites on record in OUT are applied to IN again, more or fewer of them. Where lossy ones
    were fitted to calibration data, --calibration must give the same data once more.
    """
    terminal = Terminal(json, quiet)
    with terminal.progress("bisecting") as say:
        found = structopt_onnx.bisect(
            source,
            optimized,
            data=data,
            calibration=calibration,
            max_error=max_error,
            seed=seed,
            threads=threads,
            libraries=tuple(library or ()),
            progress=say,
        )
    terminal.tell(found, lambda: render_bisection(found))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(bisect)
