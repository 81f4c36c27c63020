"""A second opinion on two small models: onnx's reference evaluator beside onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from structopt_onnx.errors import DataError, ModelError
from structopt_onnx.model.encoding import to_proto
from structopt_onnx.model.facts import Facts
from structopt_onnx.rewriting.cost import graph_cost
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes
from structopt_onnx.validation.compare import compare, output_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from structopt_onnx.runtime.session import Feeds
    from structopt_onnx.validation.compare import Validation

MOST_MACS = 50_000_000
"""Multiplications of one sample up to which the evaluator, written in numpy, is asked."""

_SAMPLES = 4


@dataclass(frozen=True)
class SecondOpinion:
    """What the reference evaluator makes of two models.

    Attributes
    ----------
    not_run
        Why it was not asked, or could not answer; empty where it did.
    validation
        B against A, both in the evaluator, within the limits of the validation proper.
    a, b
        Errors, by output, of onnxruntime, its graph optimizations off, against the evaluator.
        They say how far the engines agree on what a model means, and are no verdict.
    """

    not_run: str = ""
    validation: Validation | None = None
    a: Mapping[str, float] = field(default_factory=dict)
    b: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every reason to reject B, a line each; none where the evaluator did not run."""
        found = () if self.validation is None else self.validation.failures
        return tuple(f"in the reference evaluator: {line}" for line in found)


class _Evaluator:
    """A model in the reference evaluator, with the ports that onnxruntime tells."""

    def __init__(self, model: ir.Model, session: Session) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self._evaluator = _asked(ReferenceEvaluator, to_proto(model))

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Return the outputs of one run by name."""
        names = [port.name for port in self.outputs]
        return dict(zip(names, _asked(self._evaluator.run, names, feeds), strict=True))


def second_opinion(
    a: ir.Model,
    b: ir.Model,
    samples: Sequence[Feeds],
    **limits: Any,  # noqa: ANN401 - of `compare`
) -> SecondOpinion:
    """Run two models in onnx's reference evaluator, on the first samples.

    Parameters
    ----------
    a, b
        The original and what is to stand for it.
    samples
        Inputs of one run each.
    **limits
        ``max_error``, ``arithmetic`` and ``quanta``, as in `compare`.

    Returns
    -------
    SecondOpinion
        With the reason in `not_run` where a model takes more than `MOST_MACS` or has an operator
        that the evaluator does not have.
    """
    few = list(islice(samples, _SAMPLES))
    try:
        for name, model in (("A", a), ("B", b)):
            macs = graph_cost(model, Facts(model, shapes=observed_shapes(model, few[0]))).macs
            if macs > MOST_MACS:
                return SecondOpinion(f"{name} takes {macs:,} MACs, more than {MOST_MACS:,}")
        engines = [Session(model, optimize=False) for model in (a, b)]
        first, second = (_Evaluator(m, engine) for m, engine in zip((a, b), engines, strict=True))
        return SecondOpinion(
            validation=compare(first, second, few, **limits),
            a=output_errors(first, engines[0], few),
            b=output_errors(second, engines[1], few),
        )
    except (DataError, ModelError, _CanNotError) as error:
        return SecondOpinion(str(error))


class _CanNotError(Exception):
    """The evaluator can't read or run a model: no fault of the model, so no `ModelError`."""


def _asked(call: Any, *arguments: object) -> Any:  # noqa: ANN401 - the evaluator has no types
    try:
        with np.errstate(all="ignore"):  # its sigmoid warns of what it saturates at
            return call(*arguments)
    except Exception as error:  # it raises anything, by operator
        what = (str(error).splitlines() or [""])[0]
        raise _CanNotError(f"{type(error).__name__}: {what}") from error
