"""The command `validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Group

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.checks import validation_summary, validation_table
from structopt_onnx.report.layout import line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from structopt_onnx.api.validate import ValidationReport

FAILED = 1

_EPILOG = """\b
Examples:
  structopt-onnx validate model.onnx small.onnx
  structopt-onnx validate model.onnx small.onnx --data test.npz --max-error 0.05
  structopt-onnx validate model.onnx small.onnx --json > validation.json || echo different
"""


def validate(
    a: options.Original,
    b: options.Candidate,
    *,
    data: options.Data = None,
    max_error: options.Tolerance = None,
    drift: options.Drift = True,
    library: options.Libraries = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Check a model against the original.

    Interface and outputs are compared; the exit code is 1 when they differ by too much. Both
    run in onnxruntime on the same inputs, once with the runtime's graph optimizations off and
    once with them on.
    """
    terminal = Terminal(json, quiet)
    with terminal.progress("validating"):
        report = structopt_onnx.validate(
            a,
            b,
            data=data,
            max_error=max_error,
            seed=seed,
            threads=threads,
            libraries=tuple(library or ()),
            drift=drift,
        )
    terminal.tell(report, lambda: Group(*_parts(report)))
    if not report.passed:
        raise typer.Exit(FAILED)


def _parts(report: ValidationReport) -> Iterator[RenderableType]:
    verdict = validation_summary(report.validation)
    yield line(f"{report.b} against {report.a}: {verdict}", "bold")
    if report.samples.synthetic:
        yield line("note: on synthetic inputs, since no data were given", "yellow")
    yield validation_table(report.validation)
    if report.drift is not None:
        yield line(str(report.drift))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(validate)
