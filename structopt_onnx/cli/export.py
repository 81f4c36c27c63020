"""The command `export`."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import structopt_onnx
from structopt_onnx.calibration.functions import importable, load_function, told
from structopt_onnx.cli import budget_options, options, recipes
from structopt_onnx.cli.files import refuse_dash
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.errors import UsageError
from structopt_onnx.report.text import render

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = """\b
The factory takes nothing and returns (module, args), or a dict of what structopt_onnx.export
takes: module, args, dynamic_shapes, calibration and so on, which goes before these options.
\b
Examples:
  structopt-onnx export my_package.models:encoder encoder.onnx
  structopt-onnx export export_me.py:model small.onnx --calibration samples.npz --max-error 0.05
"""

Factory = Annotated[
    str,
    typer.Argument(
        metavar="FACTORY", help="module:function or file.py:function.", show_default=False
    ),
]


def export(
    context: typer.Context,
    factory: Factory,
    output: options.Written,
    *,
    recipe: recipes.Recipe = None,
    max_error: budget_options.MaxError = None,
    keep: budget_options.Keep = None,
    recover: budget_options.Recover = False,
    recover_minutes: budget_options.RecoverMinutes = 10.0,
    calibration: options.Calibration = None,
    minimize: options.Minimized = options.Minimize.TIME,
    target: options.TargetName = "cpu",
    benchmark: options.Benchmark = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Export a torch module and optimize what the exporter made of it.

    Needs torch: pip install 'structopt-onnx[export]'. The options are those of `optimize`, which
    has more of them for a file that is already there.
    """
    terminal = Terminal(json, quiet)
    refuse_dash(output)
    with importable(Path.cwd()), _less_noise():
        given = _given(factory, load_function(factory, "return a module and its example inputs"))
        if calibration is not None:
            given["calibration"] = calibration
        settings = {
            "max_error": max_error,
            "keep": keep,
            "recover": recover,
            "recover_minutes": recover_minutes,
            "minimize": minimize.value,
            "target": target,
            "benchmark": benchmark,
            "seed": seed,
            "threads": threads,
        }
        chosen = recipes.given(context, settings, recipe) | given
        with terminal.progress("exporting") as say:
            result = structopt_onnx.export(**chosen, output=output, progress=say)
    terminal.tell(result.report, lambda: render(result.report))


@contextmanager
def _less_noise() -> Iterator[None]:
    """Silence what torch's exporter says every time, and nobody who exports can mend."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    registry.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        registry.removeFilter(wanted)


def _given(name: str, factory: Any) -> dict[str, Any]:  # noqa: ANN401 - the user's function
    try:
        found = factory()
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{name}: the factory failed: {told(error)}") from error
    if isinstance(found, dict) and {"module", "args"} <= set(found):
        taken = {"output", "progress"} & set(found)
        if taken:
            raise UsageError(f"{name}: '{taken.pop()}' is not for the factory to give")
        return dict(found)
    if isinstance(found, tuple) and len(found) == 2:  # noqa: PLR2004 - a pair
        return {"module": found[0], "args": found[1]}
    raise UsageError(
        f"{name}: returned a {type(found).__name__}; expected (module, args), or a dict with "
        "'module' and 'args'"
    )


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(export)
