"""Options that say how much may be lost, and what is done to lose less."""

from __future__ import annotations

from typing import Annotated

import typer

MaxError = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        metavar="E",
        help="Largest relative L2 error allowed per output (for integers and booleans the share "
        "of samples that differ). Exact rewrites only without it, --metric and --keep.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Task metric to hold, with --max-drop: agreement (share of decisions that are the "
        "original's; no labels needed), agreement:OUTPUT, or your own as module:function or "
        "file.py:function, called with (run, samples): run(feeds) gives a dict of outputs, "
        "samples is a sequence of feeds and samples.indices their positions in the calibration "
        "data. It returns a number; higher is better.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="D",
        help="How much of --metric may be lost: the original's value less the result's.",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="COST=SHARE",
        help="Come down to a share of the original's parameters, macs, bytes or time at the "
        "least error, such as parameters=0.5.",
    ),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit/--no-refit",
        help="Fit last factors to what the compressed model feeds them, where that lowers the "
        "error.",
    ),
]
Recover = Annotated[
    bool,
    typer.Option(
        "--recover/--no-recover",
        help="Fine-tune the weights that lossy rewrites touched to the original's outputs; needs "
        "torch.",
    ),
]
RecoverMinutes = Annotated[
    float,
    typer.Option("--recover-minutes", metavar="M", min=0, help="Time for --recover."),
]
