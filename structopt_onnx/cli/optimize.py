"""The command `optimize`."""

from __future__ import annotations

import typer  # noqa: TC002 - typer reads annotations

import structopt_onnx
from structopt_onnx.cli import budget_options, options, recipes
from structopt_onnx.cli.files import (
    check_plots,
    check_recipe,
    check_reports,
    read_files,
    refuse_dash,
)
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.text import render
from structopt_onnx.report.writing import write_plots, write_report, write_text

_EPILOG = """\b
Examples:
  structopt-onnx optimize model.onnx small.onnx
  structopt-onnx optimize model.onnx small.onnx --max-error 0.05 --calibration samples.npz
  structopt-onnx optimize in.onnx out.onnx --calibration s.npz --metric agreement --max-drop 0.005
  structopt-onnx optimize in.onnx out.onnx --calibration s.npz --metric my.py:top1 --max-drop 0.01
  structopt-onnx optimize in.onnx out.onnx --calibration s.npz --keep parameters=0.5
  structopt-onnx optimize pruned.onnx small.onnx --minimize bytes
  structopt-onnx optimize in.onnx out.onnx --calibration s.npz --keep parameters=0.5 --recover
  structopt-onnx optimize model.onnx small.onnx --passes share-initializers --no-benchmark
  structopt-onnx optimize model.onnx model.onnx --skip '/decoder/*' --report report.json
  structopt-onnx optimize in.onnx out.onnx --report report.html --report report.md
  structopt-onnx optimize in.onnx out.onnx --recipe small --calibration s.npz --max-error 0.01
  structopt-onnx optimize in.onnx out.onnx --recipe in.toml --write-recipe out.toml
"""


def optimize(
    context: typer.Context,
    source: options.Source,
    output: options.Output,
    *,
    recipe: recipes.Recipe = None,
    max_error: budget_options.MaxError = None,
    metric: budget_options.Metric = None,
    max_drop: budget_options.MaxDrop = None,
    keep: budget_options.Keep = None,
    refit: budget_options.Refit = True,
    recover: budget_options.Recover = False,
    recover_minutes: budget_options.RecoverMinutes = 10.0,
    calibration: options.Calibration = None,
    minimize: options.Minimized = options.Minimize.TIME,
    tolerate: options.Tolerate = 0.0,
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
    benchmark: options.Benchmark = True,
    benchmark_seconds: options.BenchmarkSeconds = 20.0,
    cost_seconds: options.CostSeconds = 20.0,
    external_data: options.ExternalData = None,
    write_recipe: recipes.WriteRecipe = None,
    report: options.ReportFiles = None,
    plots: options.PlotFolder = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Make a model smaller and faster, prove the result, measure it.

    Exact rewrites only, unless --max-error allows some error at the outputs, --max-drop some loss
    of a task metric, or --keep asks for a cost. The file written is
    validated against the original; what fails or is significantly slower is taken back.
    """
    terminal = Terminal(json, quiet)
    refuse_dash(output)
    others = (source, output, *read_files(recipe, calibration))
    check_reports(report or (), *others)
    check_plots(plots)
    check_recipe(write_recipe, *others, *(report or ()))
    settings = {
        "calibration": calibration,
        "passes": passes,
        "max_error": max_error,
        "metric": metric,
        "max_drop": max_drop,
        "keep": keep,
        "refit": refit,
        "recover": recover,
        "recover_minutes": recover_minutes,
        "minimize": minimize.value,
        "tolerate": tolerate,
        "sparse_format": None if sparse_format is None else sparse_format.value,
        "target": target,
        "only": tuple(only or ()),
        "skip": tuple(skip or ()),
        "seed": seed,
        "threads": threads,
        "benchmark": benchmark,
        "benchmark_seconds": benchmark_seconds,
        "cost_seconds": cost_seconds,
        "time_limit": time_limit,
        "max_memory": max_memory,
        "libraries": tuple(library or ()),
        "allow_synthetic": allow_synthetic,
        "fuel": fuel,
        "external_data": external_data,
    }
    chosen = recipes.given(context, settings, recipe)
    with terminal.progress("optimizing") as say:
        result = structopt_onnx.optimize(source, output, progress=say, **chosen)
    for path in report or ():
        write_report(path, result.report)
    if plots is not None:
        write_plots(plots, result.report)
    if write_recipe is not None:
        write_text(write_recipe, result.report.recipe)
    terminal.tell(result.report, lambda: render(result.report))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(optimize)
