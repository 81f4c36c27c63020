"""The command `benchmark`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group

import structopt_onnx
from structopt_onnx.cli import deployment_options, options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.errors import ModelError
from structopt_onnx.report.checks import comparison_notes, speed_summary, timing_rows
from structopt_onnx.report.figures import change, count
from structopt_onnx.report.inputs import sizes
from structopt_onnx.report.layout import line, table
from structopt_onnx.report.providers import render_provider_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import typer
    from rich.console import RenderableType

    from structopt_onnx.runtime.comparison import Comparison

_EPILOG = """\b
Examples:
  structopt-onnx benchmark model.onnx
  structopt-onnx benchmark model.onnx small.onnx --data samples.npz
  structopt-onnx benchmark model.onnx small.onnx --seconds 60 --replicates 12 --json
  structopt-onnx benchmark model.onnx small.onnx --provider cpu --provider qnn --provider nnapi
"""


def benchmark(
    a: options.Measured,
    b: options.Against = None,
    *,
    data: options.Data = None,
    seconds: options.Seconds = 20.0,
    replicates: options.Replicates = 8,
    provider: deployment_options.Providers = None,
    library: options.Libraries = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Measure a model, or two against each other.

    Two are timed in pairs; the verdict has a 95 % interval and a control. It is of one thread;
    times at --threads are reported beside it. With --provider, one table over providers says of
    each whether it ran the model, how much of it and with which values; only where a time means
    something is there one, each with --seconds.
    """
    terminal = Terminal(json, quiet)
    if provider:
        with terminal.progress("measuring") as say:
            found = structopt_onnx.compare_providers(
                a,
                b,
                providers=provider,
                data=data,
                seconds=seconds,
                replicates=replicates,
                threads=threads,
                seed=seed,
                libraries=tuple(library or ()),
                progress=say,
            )
        terminal.tell(found, lambda: render_provider_table(found))
        return
    with terminal.progress("measuring"):
        try:
            comparison = structopt_onnx.benchmark(
                a,
                b,
                data=data,
                seconds=seconds,
                replicates=replicates,
                threads=threads,
                seed=seed,
                libraries=tuple(library or ()),
            )
        except ModelError as error:
            if b is not None:
                _refuse_other_inputs(a, b, error)
            raise
    made_up = data is None
    terminal.tell(comparison, lambda: Group(*_parts(comparison, a, b, made_up=made_up)))


def _refuse_other_inputs(a: Path, b: Path, failure: ModelError) -> None:
    """Say that B does not take what A takes, where that is why it could not be run."""
    from structopt_onnx.model.loading import load  # noqa: PLC0415 - imports onnx
    from structopt_onnx.validation.interface import Interface  # noqa: PLC0415 - likewise

    try:
        first, second = (replace(Interface.of(load(path)), outputs=()) for path in (a, b))
    except ModelError:
        return  # not even read, which the failure says
    found = first.differences(second)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ModelError(
            f"{b}: can't be measured on the inputs of {a}: {found[0]}{more}"
        ) from failure


def _parts(
    comparison: Comparison, a: Path, b: Path | None, *, made_up: bool
) -> Iterator[RenderableType]:
    names = str(a) if b is None else f"{b} against {a}"
    yield line(f"{names}: {speed_summary(comparison, '--seconds')}", "bold")
    if made_up:
        listed = sizes(comparison.shapes)
        inputs = f"made-up inputs: {listed}" if listed else "made-up inputs"
        yield line(f"note: measured on {inputs}; give --data for real ones", "yellow")
    first = comparison.a
    second = comparison.b
    rows = list(timing_rows(first, second))
    if second is None:
        cells = [("file, bytes", count(first.file_bytes)), *((r[0], r[1]) for r in rows)]
        yield table(("", "A"), cells, (1,))
    else:
        files = first.file_bytes, second.file_bytes
        both = [
            ("file, bytes", count(files[0]), count(files[1]), change(*files)),
            *((what, x, y, change(p, q)) for what, x, y, p, q in rows),
        ]
        yield table(("", "A", "B", "change"), both, (1, 2, 3))
    for note in comparison_notes(comparison):
        yield line(note)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(benchmark)
