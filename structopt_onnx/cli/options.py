"""Arguments and options of the commands, as typer reads them from annotations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from structopt_onnx.cli.quantities import memory, seconds


class Minimize(StrEnum):
    """What lossy rewrites must lower."""

    TIME = "time"
    BYTES = "bytes"
    MACS = "macs"
    PARAMETERS = "parameters"


class Sparse(StrEnum):
    """How weights with zeros are stored."""

    AUTO = "auto"
    INITIALIZER = "initializer"
    BITMASK = "bitmask"
    DELTA = "delta"
    NONE = "none"


Source = Annotated[
    Path, typer.Argument(metavar="IN", help="The model to read.", show_default=False)
]
Output = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="The file to write; may be IN.", show_default=False),
]
Written = Annotated[
    Path, typer.Argument(metavar="OUT", help="The file to write.", show_default=False)
]

Original = Annotated[Path, typer.Argument(metavar="A", help="The original.", show_default=False)]
Candidate = Annotated[
    Path, typer.Argument(metavar="B", help="What is to stand for it.", show_default=False)
]
Measured = Annotated[Path, typer.Argument(metavar="A", help="A model.", show_default=False)]
Against = Annotated[
    Path | None,
    typer.Argument(
        metavar="B", help="A model to measure against A; A alone without it.", show_default=False
    ),
]
Optimized = Annotated[
    Path, typer.Argument(metavar="OUT", help="What `optimize` made of IN.", show_default=False)
]
PassName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="Show this pass in full; all in short without it.", show_default=False
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Write JSON to standard output, and nothing else there.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but errors (and --json if given).")
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Of everything random; the same seed gives the same bytes.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of the runtime's sessions, as where the model will run. Factorizing, by "
        "four workers at most, and recovery take the cores that this process may use.",
    ),
]

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Inputs to run on: an npz file, a folder of npz files or ONNX test data sets, or "
        "module:factory. Made up when not given.",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="DATA",
        help="Sample inputs: an npz file, a folder of npz files or ONNX test data sets, or "
        "module:factory. Made up when not given.",
    ),
]
Passes = Annotated[
    str | None,
    typer.Option(
        "--passes",
        metavar="TEXT",
        help="The pipeline, such as 'share-initializers,factor-matmul{rank_multiple=16}'; "
        "all passes when not given (see the command `passes`).",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        metavar="E",
        help="Largest relative L2 error allowed per output (for integers and booleans the share "
        "of samples that differ). Rounding of the output's type when not given.",
    ),
]
Recalled = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="DATA",
        help="What `optimize` was given; needed where lossy rewrites were fitted to it.",
    ),
]
CompareOn = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Inputs to compare on; by default the part of the calibration data that `optimize` "
        "judges by, or made-up ones.",
    ),
]
Recorded = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        metavar="E",
        help="Largest relative L2 error allowed per output; by default that of the run on record, "
        "which has none where it had --keep or --metric alone: give one then.",
    ),
]
Minimized = Annotated[
    Minimize,
    typer.Option("--minimize", help="What lossy rewrites must lower."),
]
Tolerate = Annotated[
    float,
    typer.Option(
        "--tolerate",
        metavar="SHARE",
        help="How much measured time may rise when something else is minimized: 0.1 is 10 %.",
    ),
]
SparseFormat = Annotated[
    Sparse | None,
    typer.Option(
        "--sparse-format",
        help="How weights with zeros are stored: auto for the smallest. By default auto with"
        " --minimize bytes, else none; what came encoded stays so.",
        show_default=False,
    ),
]
TargetName = Annotated[
    str,
    typer.Option(
        "--target", metavar="NAME", help="Where the model will run: cpu, nnapi, coreml or qnn."
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="GLOB", help="Rewrite only nodes of these names; repeatable."),
]
Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="GLOB", help="Leave nodes of these names alone; repeatable."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        parser=seconds,
        help="Stop looking for more after this time (90, 90s, 10m, 2h) and keep what was found.",
    ),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        parser=memory,
        help="Memory that moments of activations may take at once (such as 512M or 4G); less "
        "takes more passes over the samples.",
    ),
]
Libraries = Annotated[
    list[Path] | None,
    typer.Option(
        "--ort-library",
        metavar="FILE",
        help="Shared library with custom operators for onnxruntime; repeatable.",
    ),
]
AllowSynthetic = Annotated[
    bool,
    typer.Option(
        "--allow-synthetic", help="Judge lossy rewrites on made-up inputs when there are no data."
    ),
]
Fuel = Annotated[
    int | None,
    typer.Option("--fuel", metavar="N", min=0, help="Apply at most this many exact rewrites."),
]
Benchmark = Annotated[bool, typer.Option("--benchmark/--no-benchmark", help="Measure the result.")]
BenchmarkSeconds = Annotated[
    float, typer.Option("--benchmark-seconds", metavar="S", help="Time for measuring.")
]
CostSeconds = Annotated[
    float,
    typer.Option(
        "--cost-seconds",
        metavar="S",
        help="Time for timing what lossy rewrites touch, when time is minimized; 0 goes by "
        "predictions alone.",
    ),
]
Seconds = Annotated[float, typer.Option("--seconds", metavar="S", help="Time for all of it.")]
Replicates = Annotated[
    int,
    typer.Option("--replicates", metavar="N", help="How often sessions are made anew; at least 8."),
]
MaxQuanta = Annotated[
    float | None,
    typer.Option(
        "--quanta",
        metavar="N",
        help="Largest difference in quanta, of outputs that have one: the scale of the "
        "DequantizeLinear they come out of, an integer step, float16's unit in the last place.",
    ),
]
Reference = Annotated[
    bool,
    typer.Option(
        "--reference", help="Also run both in onnx's reference evaluator, where they are small."
    ),
]
Drift = Annotated[
    bool,
    typer.Option("--drift/--no-drift", help="When B fails, look for the first tensor that is off."),
]
ExternalData = Annotated[
    bool | None,
    typer.Option(
        "--external-data/--no-external-data",
        help="Write weights to a file beside OUT; by default only where OUT would pass 2 GB.",
        show_default=False,
    ),
]
DocsFolder = Annotated[
    Path | None,
    typer.Option("--docs", metavar="DIR", help="Also write a Markdown page per pass there."),
]
ReportFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also write the report there: .html (needs structopt-onnx[report]), .md or .json; "
        "repeatable.",
    ),
]
PlotFolder = Annotated[
    Path | None,
    typer.Option(
        "--plots",
        metavar="DIR",
        help="Draw the report's plots there as PNG files (needs structopt-onnx[report]).",
    ),
]
