"""Arguments and options of the commands that look at where a model will run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME[=DIR]",
        help="Run on this execution provider, such as cpu, cuda, qnn or xnnpack (see the command "
        "`providers`); DIR is where to look for what it needs; repeatable.",
    ),
]
ProviderNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME[=DIR]",
        help="Providers, and where to look for what they need; all without it.",
        show_default=False,
    ),
]
BundleFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="The folder to write; it must not exist, or be empty.",
        show_default=False,
    ),
]  # fmt: skip
Before = Annotated[
    Path | None,
    typer.Option(
        "--before",
        metavar="FILE",
        help="What to compare the required operators with: the model that the app has now, or "
        "the .config file that its onnxruntime was built with.",
    ),
]
