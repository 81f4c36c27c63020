"""The record of one run of `optimize`: plain data, rendered elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx import __version__
from structopt_onnx.report.caveats import caveats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.report.plan_record import PlanReport
    from structopt_onnx.report.provider_grid import ProviderRow
    from structopt_onnx.rewriting.cost import Cost
    from structopt_onnx.rewriting.record import Applied, Refused
    from structopt_onnx.runtime.comparison import Comparison
    from structopt_onnx.runtime.coverage import Coverage
    from structopt_onnx.runtime.machine import Machine
    from structopt_onnx.validation.models import ModelValidation

SCHEMA = 1
"""Version of the JSON form; raised when a field changes its meaning or goes."""


@dataclass(frozen=True)
class Size:
    """How big a model is.

    Parameters
    ----------
    cost
        Static cost of the graph on the target.
    file_bytes
        The model file and its external data, or what they would take.
    operators
        Nodes per operator, most frequent first, subgraphs and functions included.
    """

    cost: Cost
    file_bytes: int
    operators: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleReport:
    """The inputs that the run had.

    Parameters
    ----------
    origin
        File, folder or factory; ``synthetic`` when they were made up.
    synthetic
        Whether they were made up.
    count
        Samples in all.
    fit, probe, final
        Samples per part; 0 where nothing lossy was tried.
    by_source
        Whether the parts differ by source; otherwise they are contiguous blocks and errors may
        be understated. None where nothing was split.
    shapes
        Inputs of the first sample, such as ``x float32[1,3,32,32]``: what speed and
        multiplications were counted at.
    """

    origin: str
    synthetic: bool
    count: int
    fit: int = 0
    probe: int = 0
    final: int = 0
    by_source: bool | None = None
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EstimateRow:
    """What a lossy budget might buy, from spectra alone and without probes.

    Parameters
    ----------
    local_error
        Relative error allowed at every site.
    parameters, macs
        What would be left of the whole model's.
    """

    local_error: float
    parameters: int
    macs: int


@dataclass(frozen=True)
class Report:
    """Everything one run of `optimize` did, from which JSON and text are made.

    Parameters
    ----------
    source, output
        Display names of the model read and the file written; output is None when none was.
    options
        The options as given, by name.
    pipeline
        Pipeline text of all steps.
    machine
        Where it ran.
    before, after
        Sizes.
    applied, refused
        Every patch, library step and refusal, exact and lossy, in order.
    samples
        The inputs used.
    plan
        The lossy part; None when no budget was given.
    estimate
        What budgets might buy; empty when a budget was given or nothing could be said.
    estimate_basis
        What the estimate rests on: ``calibration`` or ``weights``.
    validation
        The check of the saved file against the original.
    comparison
        The paired benchmark; None when it was skipped.
    coverage_before, coverage_after
        What the target's provider is predicted to take; None for a target that has every operator.
    rolled_back
        What was taken back after validation or measurement, with the reason, a line each.
    warnings
        What puts the verdict in question, a line each.
    notes
        Anything else the user should know, a line each.
    seconds
        Wall time per stage.
    recipe
        The options and the calibration data as TOML that `optimize` takes as a recipe.
    schema, version
        Versions of the JSON form and of this package.
    """

    source: str
    output: str | None
    options: Mapping[str, object]
    pipeline: str
    machine: Machine
    before: Size
    after: Size
    applied: tuple[Applied, ...]
    refused: tuple[Refused, ...]
    samples: SampleReport
    plan: PlanReport | None = None
    estimate: tuple[EstimateRow, ...] = ()
    estimate_basis: str = "weights"
    validation: ModelValidation | None = None
    comparison: Comparison | None = None
    coverage_before: Coverage | None = None
    coverage_after: Coverage | None = None
    rolled_back: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    recipe: str = ""
    schema: int = SCHEMA
    version: str = __version__

    def __str__(self) -> str:
        """Render the report as plain text."""
        from structopt_onnx.report.text import render_text  # noqa: PLC0415 - it imports this module

        return render_text(self)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What puts the verdict in question, the warnings among it, and what was not shown."""
        return tuple(caveats(self))

    def to_html(self, path: str | Path, *, providers: Sequence[ProviderRow] = ()) -> Path:
        """Write it as one HTML file that loads nothing; needs the extra `report`.

        Parameters
        ----------
        path
            Where to.
        providers
            What is known of the models on execution providers.

        Raises
        ------
        UsageError
            When jinja2 is not installed, or the file can't be written.
        """
        from structopt_onnx.report.html.page import render_html  # noqa: PLC0415 - an extra
        from structopt_onnx.report.writing import write_text  # noqa: PLC0415 - likewise

        return write_text(Path(path), render_html(self, providers))

    def to_png(self, folder: str | Path) -> list[Path]:
        """Draw its plots into PNG files; needs the extra `report`.

        Parameters
        ----------
        folder
            Where to; made if need be.

        Raises
        ------
        UsageError
            When matplotlib is not installed, or the folder can't be written.
        """
        from structopt_onnx.report.writing import write_plots  # noqa: PLC0415 - an extra

        return write_plots(Path(folder), self)

    def _repr_html_(self) -> str:
        """Show it in a notebook: the page in a frame, or plain text without the extra."""
        from structopt_onnx.report.html.frame import framed  # noqa: PLC0415 - an extra

        return framed(self)
