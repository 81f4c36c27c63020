"""What `optimize` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.model.saving import save

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.report.record import Report


@dataclass(frozen=True)
class Result:
    """The optimized model and the report on how it came about.

    Parameters
    ----------
    model
        The model; yours to change.
    report
        The record of the run; `print` it.
    bench
        The original with the samples and options of the run, for `recover`.
    """

    model: ir.Model
    report: Report
    bench: Bench | None = field(default=None, repr=False, compare=False)

    def save(self, path: str | Path, *, external_data: bool | None = None) -> Path:
        """Write the model; see `structopt_onnx.model.saving.save`."""
        return save(self.model, path, external_data=external_data)
