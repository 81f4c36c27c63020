"""The command `bundle`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

import structopt_onnx
from structopt_onnx.cli import deployment_options, options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.figures import count, error, plural
from structopt_onnx.report.layout import bullets, line, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer
    from rich.console import RenderableType

    from structopt_onnx.api.bundle import Bundle

_EPILOG = """\b
Examples:
  structopt-onnx bundle small.onnx app/assets --data samples.npz
  structopt-onnx bundle small.onnx app/assets --before model.onnx
  structopt-onnx bundle small.onnx app/assets --before app/required_operators.config --json
"""


def bundle(
    source: options.Source,
    folder: deployment_options.BundleFolder,
    *,
    before: deployment_options.Before = None,
    data: options.Data = None,
    library: options.Libraries = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """Write what an app needs of a model into one folder.

    The model with its shapes fixed to those of the first sample, two files in onnxruntime's
    format (all optimizations baked in, and one that leaves nodes to NNAPI or CoreML), the lists
    of operators that a reduced build must have, and a manifest with sizes and digests. The
    files are run and compared before anything is written.
    """
    terminal = Terminal(json, quiet)
    with terminal.progress("bundling"):
        made = structopt_onnx.bundle(
            source,
            folder,
            before=before,
            data=data,
            seed=seed,
            threads=threads,
            libraries=tuple(library or ()),
        )
    terminal.tell(made, lambda: Group(*_parts(made)))


def _parts(made: Bundle) -> Iterator[RenderableType]:
    yield line(f"{made.source} -> {made.folder}: for onnxruntime {made.onnxruntime}", "bold")
    yield line(f"takes {'; '.join(made.inputs)}; gives {'; '.join(made.outputs)}")
    rows = [(file.name, count(file.bytes), error(file.error)) for file in made.files]
    yield table(("file", "bytes", "error"), rows, (1, 2))
    for form in made.required:
        said = f"{form.model} needs {plural(len(form.operators), 'operator')}"
        if made.before and not form.added:
            said += f", none that {made.before} does not"
        yield line(said)
    for form in made.required:
        for title, operators in (("New", form.added), ("No longer needed", form.removed)):
            if operators:
                heading = f"{title} in {form.model} against {made.before}"
                yield section(heading, bullets(map(str, operators)))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(bundle)
