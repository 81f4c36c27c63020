"""The command `bisect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.figures import error, plural
from structopt_onnx.report.layout import line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer
    from rich.console import RenderableType

    from structopt_onnx.api.bisect import Bisection

_EPILOG = """\b
Examples:
  structopt-onnx bisect model.onnx small.onnx --data test.npz
  structopt-onnx bisect model.onnx small.onnx --calibration samples.npz --max-error 0.01
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

    The rewrites on record in OUT are applied to IN again, more or fewer of them.
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
    terminal.tell(found, lambda: Group(*_parts(found)))


def _parts(found: Bisection) -> Iterator[RenderableType]:
    limit = "rounding" if found.max_error is None else error(found.max_error)
    culprit = found.culprit
    if culprit is not None:
        where = f" at {culprit.node}" if culprit.node else ""
        yield line(f"rewrite {culprit.number}, by {culprit.step}{where}: {culprit.title}", "bold")
        yield line(f"with it: {found.failure or error(found.error)}")
    elif found.failure is not None:
        yield line(f"{found.optimized} fails, but no rewrite on record is to blame", "bold")
        yield line(f"{found.failure}; was the file changed after it was made?")
    else:
        yield line(f"{found.optimized} keeps to its limit: error {error(found.error)}", "bold")
    yield line(
        f"limit {limit}; {plural(found.patches, 'rewrite')} on record, "
        f"{plural(found.evaluations, 'model')} compared on "
        f"{plural(found.samples.count, 'sample')} from {found.samples.origin}"
    )


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(bisect)
