"""The command `validate`."""

from __future__ import annotations

import typer

import structopt_onnx
from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.checks import render_validation

FAILED = 1

_EPILOG = """\b
Examples:
  structopt-onnx validate model.onnx small.onnx
  structopt-onnx validate model.onnx small.onnx --data test.npz --max-error 0.05
  structopt-onnx validate model.onnx int8.onnx --data test.npz --quanta 8
  structopt-onnx validate model.onnx small.onnx --max-error 0.05 --reference
  structopt-onnx validate model.onnx small.onnx --json > validation.json || echo different
"""


def validate(
    a: options.Original,
    b: options.Candidate,
    *,
    data: options.Data = None,
    max_error: options.Tolerance = None,
    quanta: options.MaxQuanta = None,
    reference: options.Reference = False,
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
            quanta=quanta,
            reference=reference,
        )
    terminal.tell(report, lambda: render_validation(report))
    if not report.passed:
        raise typer.Exit(FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(validate)
