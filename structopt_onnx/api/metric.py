"""The user's own task metric, and the built-in one that needs no labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from structopt_onnx.calibration.functions import is_function, load_function, told
from structopt_onnx.errors import UsageError
from structopt_onnx.validation.agreement import DecisionAgreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.runtime.session import Feeds, Outputs, Session

    Run: TypeAlias = Callable[[Feeds], Outputs]
    Function: TypeAlias = Callable[[Run, Samples], float]

AGREEMENT = "agreement"


@dataclass(frozen=True)
class TaskMetric:
    """A figure of merit of a model on samples; higher is better.

    Parameters
    ----------
    name
        What the user calls it.
    function
        Called as ``function(run, samples)``: ``run(feeds)`` runs the model once on a dict of
        arrays by input name and returns a dict of arrays by output name; ``samples`` is the
        sequence of feeds to judge on, and ``samples.indices`` holds their positions in the
        calibration data, to look labels up by. Returns a finite number, higher is better. None
        for the built-in agreement of decisions, which compares with the original.
    output
        The output that agreement is about; None takes the worst of all.
    """

    name: str
    function: Function | None = None
    output: str | None = None

    @classmethod
    def load(cls, metric: str | Callable[..., Any]) -> TaskMetric:
        """Read the option.

        Parameters
        ----------
        metric
            ``agreement``, ``agreement:OUTPUT``, ``module:function``, ``file.py:function``, or a
            function.

        Raises
        ------
        UsageError
            When there is no such function.
        """
        if not isinstance(metric, str):
            name = getattr(metric, "__qualname__", type(metric).__qualname__)
            return cls(f"{getattr(metric, '__module__', '')}:{name}".lstrip(":"), metric)
        built_in, _, output = metric.partition(":")
        if built_in == AGREEMENT:
            return cls(metric, None, output or None)
        if not is_function(metric):
            raise UsageError(
                f"metric is {AGREEMENT}, {AGREEMENT}:OUTPUT, module:function or file.py:function, "
                f"not '{metric}'"
            )
        return cls(metric, load_function(metric, "take (run, samples) and return a number"))

    def of_original(self, session: Session, samples: Samples) -> float:
        """Return the figure of the original.

        Raises
        ------
        UsageError
            When the function fails, or returns no finite number.
        """
        if self.function is None:
            return 1.0  # a model agrees with itself
        try:
            value = _number(self.function(session.run, samples))
        except Exception as error:  # the user's code may raise anything
            raise UsageError(
                f"metric {self.name}: failed on the original: {told(error)}"
            ) from error
        if not math.isfinite(value):
            raise UsageError(
                f"metric {self.name}: returned {value} for the original; it must return a finite "
                "number, higher is better"
            )
        return value

    def of_candidate(self, session: Session, samples: Samples) -> float:
        """Return the figure of a candidate; minus infinity where the function fails on it.

        It did not fail on the original, so this is the candidate's doing: a NaN, say.
        """
        if self.function is None:
            raise TypeError("agreement is counted while outputs are compared")
        try:
            value = _number(self.function(session.run, samples))
        except Exception:  # noqa: BLE001 - the user's code may raise anything
            return -math.inf
        return -math.inf if math.isnan(value) else value

    def agreement(self, session: Session) -> dict[str, DecisionAgreement]:
        """Return a counter per output of the original that agreement is about.

        Raises
        ------
        UsageError
            When there is no such output.
        """
        declared = {info.name: info.shape for info in session.outputs}
        if self.output is not None and self.output not in declared:
            raise UsageError(
                f"metric {self.name}: no output named '{self.output}'; the model has "
                f"{', '.join(declared)}"
            )
        names = declared if self.output is None else (self.output,)
        return {name: DecisionAgreement(declared[name]) for name in names}


def _number(value: object) -> float:
    if isinstance(value, str):
        raise TypeError("returned text, not a number")
    return float(value)  # type: ignore[arg-type]  # what is no number raises
