"""The command `explain`."""

from __future__ import annotations

import typer  # noqa: TC002 - typer reads annotations

import structopt_onnx
from structopt_onnx.cli import budget_options, options, recipes
from structopt_onnx.cli.files import check_reports, read_files
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.text import render
from structopt_onnx.report.writing import write_report

_EPILOG = """\b
Examples:
  structopt-onnx explain model.onnx
  structopt-onnx explain model.onnx --max-error 0.05 --calibration samples.npz
  structopt-onnx explain model.onnx --max-error 0.05 --calibration s.npz --report sites.html
  structopt-onnx explain model.onnx --json | jq '.refused[].refusal.code' | sort | uniq -c
"""


def explain(
    context: typer.Context,
    source: options.Source,
    *,
    recipe: recipes.Recipe = None,
    max_error: budget_options.MaxError = None,
    calibration: options.Calibration = None,
    minimize: options.Minimized = options.Minimize.TIME,
    sparse_format: options.SparseFormat = None,
    target: options.TargetName = "cpu",
    passes: options.Passes = None,
    only: options.Only = None,
    skip: options.Skip = None,
    fuel: options.Fuel = None,
    allow_synthetic: options.AllowSynthetic = False,
    time_limit: options.TimeLimit = None,
    max_memory: options.MaxMemory = None,
    library: options.Libraries = None,
    report: options.ReportFiles = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Say what `optimize` would do and what not, and why.

    No model is written.
    """
    terminal = Terminal(json, quiet)
    check_reports(report or (), source, *read_files(recipe, calibration))
    settings = {
        "calibration": calibration,
        "passes": passes,
        "max_error": max_error,
        "minimize": minimize.value,
        "sparse_format": None if sparse_format is None else sparse_format.value,
        "target": target,
        "only": tuple(only or ()),
        "skip": tuple(skip or ()),
        "seed": seed,
        "threads": threads,
        "time_limit": time_limit,
        "max_memory": max_memory,
        "libraries": tuple(library or ()),
        "allow_synthetic": allow_synthetic,
        "fuel": fuel,
    }
    chosen = recipes.given(context, settings, recipe)
    with terminal.progress("explaining") as say:
        found = structopt_onnx.explain(source, progress=say, **chosen)
    for path in report or ():
        write_report(path, found)
    terminal.tell(found, lambda: render(found))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(explain)
