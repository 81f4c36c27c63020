"""Validates one model against another as users will run them, and without the runtime's help."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.errors import DataError, ModelError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.loading import load
from structopt_onnx.model.tensors import let_go
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.compare import Validation, compare, output_errors
from structopt_onnx.validation.interface import Interface
from structopt_onnx.validation.quanta import Quanta, Quantum, output_quanta
from structopt_onnx.validation.tolerances import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from structopt_onnx.runtime.session import Feeds

_NOISE_SAMPLES = 8


@dataclass(frozen=True)
class ModelValidation:
    """Verdict on a model that is to stand for another.

    Attributes
    ----------
    interface
        One line per way in which the declared interfaces differ; empty is right.
    exact
        The check of what the models mean: the runtime's graph optimizations off.
    shipped
        The check of what users get: the same with the optimizations on.
    noise
        Error, by output, of the original run with optimizations against itself run without, on
        the first few samples. It says how much of an error is the runtime's own and loosens no
        limit.
    """

    interface: tuple[str, ...]
    exact: Validation
    shipped: Validation
    noise: Mapping[str, float]

    @property
    def failures(self) -> tuple[str, ...]:
        """Every reason to reject the candidate, a line each."""
        lines = [*self.interface, *self.exact.failures]
        lines += [
            line if line in lines else f"with runtime optimizations: {line}"
            for line in self.shipped.failures
        ]
        return tuple(dict.fromkeys(lines))

    @property
    def passed(self) -> bool:
        """Whether the candidate may stand for the original."""
        return not self.failures


def validate_models(
    reference: Path | bytes | ir.Model,
    candidate: Path | bytes | ir.Model,
    samples: Sequence[Feeds],
    *,
    max_error: float | Mapping[str, float] | None = None,
    unlimited: bool = False,
    exactness: Exactness = Exactness.ROUNDING,
    synthetic: bool = False,
    max_quanta: float | None = None,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> ModelValidation:
    """Check that a model has another's interface and outputs.

    Parameters
    ----------
    reference, candidate
        The original and what is to stand for it: files, serialized models, or models in memory.
    samples
        Inputs of one run each; they are gone through twice.
    max_error
        Largest error of every output, or by output name, in both checks; see `compare`.
    unlimited
        Set no limit on errors; see `compare`.
    exactness
        What the candidate promises of outputs without a budget. Same bits are asked for in the
        exact check only: equal graphs can be fused differently, so the shipped check of a bitwise
        promise is one of rounding.
    synthetic
        Whether the samples were made up.
    max_quanta
        Quanta that an output may be off, where it has a quantum: see `Quantum`.
    threads, libraries
        Passed to the sessions.

    Returns
    -------
    validation
        The verdict; a difference is reported there, never raised.

    Raises
    ------
    DataError
        Nothing was compared (see `compare`), or the samples don't fit the reference.
    ModelError
        A model can't be read, or the reference can't be opened or run.
    UsageError
        `max_error` is no budget for these models, or `max_quanta` is set and no output has one.
    """
    if not len(samples):
        raise DataError("there are no samples, so nothing was compared")
    promised, made = _Declared.of(reference), _Declared.of(candidate)
    interface = promised.interface.differences(made.interface)
    quanta = None if max_quanta is None else Quanta.of(max_quanta, made.quanta, promised.quanta)

    def session(model: Path | bytes | ir.Model, *, optimize: bool) -> Session:
        return Session(model, optimize=optimize, threads=threads, libraries=libraries)

    def check(original: Session, promise: Exactness, *, optimized: bool) -> Validation:
        try:
            opened = session(candidate, optimize=optimized)
        except ModelError as error:
            refused = (f"the candidate can't be opened: {error}",)
            return Validation((), refused, 0, {}, optimized, synthetic)
        return compare(
            original,
            opened,
            samples,
            max_error=max_error,
            unlimited=unlimited,
            exactness=promise,
            arithmetic=promised.arithmetic,
            quanta=quanta,
            optimized=optimized,
            synthetic=synthetic,
        )

    # At most two sessions are open at a time: each holds all weights.
    plain = session(reference, optimize=False)
    exact = check(plain, exactness, optimized=False)
    fused = session(reference, optimize=True)
    noise = output_errors(plain, fused, islice(samples, _NOISE_SAMPLES))
    del plain
    promise = Exactness.ROUNDING if exactness is Exactness.BITWISE else exactness
    return ModelValidation(interface, exact, check(fused, promise, optimized=True), noise)


@dataclass(frozen=True)
class _Declared:
    """What a model says of itself; its weights are let go."""

    interface: Interface
    arithmetic: str | None
    quanta: Mapping[str, Quantum]

    @classmethod
    def of(cls, model: Path | bytes | ir.Model) -> _Declared:
        read = model if isinstance(model, ir.Model) else load(model)
        declared = cls(Interface.of(read), arithmetic_dtype(read), output_quanta(read))
        if read is not model:
            let_go(read)
        return declared
