"""`validate`: whether one model may stand for another, and where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.inputs import Opened, open_source, sample_report, samples_for
from structopt_onnx.errors import ModelError
from structopt_onnx.validation.drift import Drift
from structopt_onnx.validation.drift import drift as find_drift
from structopt_onnx.validation.models import ModelValidation, validate_models
from structopt_onnx.validation.quanta import Quanta, output_quanta
from structopt_onnx.validation.second_opinion import SecondOpinion, second_opinion
from structopt_onnx.validation.tolerances import ROUNDING, arithmetic_dtype

if TYPE_CHECKING:
    from pathlib import Path

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source
    from structopt_onnx.report.record import SampleReport

# The search for the first tensor that differs runs both models many times.
_DRIFT_SAMPLES = 8


@dataclass(frozen=True)
class ValidationReport:
    """The verdict on model B as a stand-in for model A.

    Parameters
    ----------
    a, b
        Display names of the models.
    samples
        The inputs they were run on.
    validation
        The verdict and the numbers behind it.
    drift
        The first tensor that differs; None when nothing failed, or it was not looked for, or no
        tensor that both models name alike is off.
    reference
        What onnx's reference evaluator says; None where it was not asked for.
    """

    a: str
    b: str
    samples: SampleReport
    validation: ModelValidation
    drift: Drift | None
    reference: SecondOpinion | None = None

    @property
    def passed(self) -> bool:
        """Whether B may stand for A."""
        return self.validation.passed and not (self.reference and self.reference.failures)


def validate(
    a: Source,
    b: Source,
    *,
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    max_error: float | Mapping[str, float] | None = None,
    seed: int = 0,
    threads: int = 1,
    libraries: Sequence[Path] = (),
    drift: bool = True,
    quanta: float | None = None,
    reference: bool = False,
) -> ValidationReport:
    """Compare interface and outputs of two models, with the runtime's optimizations and without.

    Parameters
    ----------
    a, b
        The original and what is to stand for it: path, bytes, `onnx.ModelProto` or
        `onnx_ir.Model`.
    data
        Inputs: an npz file, a folder, ``module:factory``, arrays by input name, or feeds. None
        makes some up.
    max_error
        Largest relative L2 error of every output, pooled over the samples, or by output name.
        None allows rounding only.
    seed
        Of made-up inputs.
    threads, libraries
        Of the sessions: threads inside one operator, shared libraries with custom operators.
    drift
        Whether to look for the first tensor that differs when the verdict is no.
    quanta
        Largest difference of every output that has a quantum, in quanta: the scale of the
        DequantizeLinear that it comes out of, an integer step, or float16's unit in the last place
        at its largest value. Rounding is then not asked of it; `max_error` still is where given.
    reference
        Whether to run both models in onnx's reference evaluator, too, where they are small.

    Returns
    -------
    ValidationReport
        A difference is reported there, never raised.

    Raises
    ------
    ModelError
        When a model can't be read, or the original can't be run.
    DataError
        When the data does not fit, or nothing was compared.
    UsageError
        When `max_error` or `quanta` is no limit for these models.
    """
    first, second = open_source(a), open_source(b)
    samples = samples_for(first, data, seed=seed, threads=threads, libraries=libraries)
    verdict = validate_models(
        first.stored,
        second.stored,
        samples,
        max_error=max_error,
        synthetic=samples.synthetic,
        max_quanta=quanta,
        threads=threads,
        libraries=libraries,
    )
    opinion = None
    if reference:
        models = first.model, second.model
        limits = (
            None if quanta is None else Quanta.of(quanta, *map(output_quanta, reversed(models)))
        )
        arithmetic = arithmetic_dtype(first.model)
        opinion = second_opinion(
            *models, samples, max_error=max_error, arithmetic=arithmetic, quanta=limits
        )
    found = None
    if drift and not verdict.passed:
        found = _drift(
            (first, second),
            _telling(samples, verdict),
            max_error,
            threads=threads,
            libraries=libraries,
        )
    origin = sample_report(samples)
    return ValidationReport(first.name, second.name, origin, verdict, found, opinion)


def _telling(samples: Samples, verdict: ModelValidation) -> Samples:
    """Return the first samples, and each output's worst one."""
    metrics = (*verdict.exact.outputs, *verdict.shipped.outputs)
    worst = {m.worst_sample for m in metrics if m.worst_sample is not None}
    return samples.subset(sorted(worst | set(range(min(len(samples), _DRIFT_SAMPLES)))))


def _drift(
    models: tuple[Opened, Opened],
    samples: Samples,
    max_error: float | Mapping[str, float] | None,
    *,
    threads: int,
    libraries: Sequence[Path],
) -> Drift | None:
    first, second = models
    tolerance = ROUNDING[arithmetic_dtype(first.model) or "float32"]
    if isinstance(max_error, Mapping):
        tolerance = max(max_error.values(), default=tolerance)
    elif max_error is not None:
        tolerance = float(max_error)
    try:
        return find_drift(
            first.model,
            second.model,
            samples,
            tolerance=tolerance,
            threads=threads,
            libraries=libraries,
        )
    except ModelError:  # B does not take A's inputs or does not run, which the verdict says
        return None
