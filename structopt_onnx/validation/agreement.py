"""How often two models decide alike, whatever their outputs' values: no labels are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.validation.classes import ClassAgreement
from structopt_onnx.validation.values import is_float

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAST_AXIS = "largest along the last axis"
AXIS_1 = "largest along axis 1"

_SUM_OF_SHARES = 1e-2
"""How far a row of probabilities may be from a sum of 1."""

_IMAGE_RANK = 4
"""From this rank on an output is laid out as N, C, spatial axes."""


class DecisionAgreement:
    """Share of the decisions on which one output of a candidate agrees with the original's.

    What a decision is depends on the output:

    - integers, booleans and text are decisions already: each element is one;
    - class scores decide by their largest entry along the class axis. The class axis is the last
      one where the model declares a size of at least 2 for it or every row sums up to 1; from
      rank 4 on (N, C, spatial axes) it is axis 1, unless the rows of the last axis sum up to 1;
    - else values that all lie in [0, 1] decide by being over 0.5 (a map of probabilities per
      pixel, a probability of speech), and all others by their sign (log-odds).

    Parameters
    ----------
    declared
        The sizes that the original declares for the output's axes: numbers, or anything else
        where they are free.
    """

    def __init__(self, declared: Sequence[object]) -> None:
        self._last = _is_size(declared[-1] if declared else None)
        self._channels = len(declared) >= _IMAGE_RANK and _is_size(declared[1])
        self._image = len(declared) >= _IMAGE_RANK
        self._rows, self._by_channel = ClassAgreement(), ClassAgreement()
        self._shares = self._unit = True
        self._count = self._half = self._sign = 0
        self._floats: bool | None = None
        self._runs: list[dict[str, tuple[int, int]]] = []

    def update(self, reference: object, candidate: object) -> None:
        """Count the decisions of one run; what is no tensor counts nothing."""
        self._update(reference, candidate)
        self._runs.append(self._tallies())

    def _update(self, reference: object, candidate: object) -> None:
        if not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
            return
        self._floats = is_float(reference.dtype) and reference.dtype.kind != "c"
        self._count += reference.size
        if reference.shape != candidate.shape:
            self._shares = self._unit = False
            return
        if not self._floats:
            self._half += int(np.count_nonzero(reference == candidate))
            return
        a, b = np.atleast_2d(reference), np.atleast_2d(candidate)
        self._rows.update(a, b)
        if self._image:
            self._by_channel.update(np.moveaxis(a, 1, -1), np.moveaxis(b, 1, -1))
        self._look(a, b)

    def _look(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        unit = bool(((a >= 0) & (a <= 1)).all())
        self._unit &= unit
        sums = a.sum(axis=-1, dtype=np.float64) if self._shares and a.size else np.ones(1)
        self._shares &= unit and a.shape[-1] > 1 and bool((np.abs(sums - 1) < _SUM_OF_SHARES).all())
        self._half += int(np.count_nonzero((a > 0.5) == (b > 0.5)))  # noqa: PLR2004 - even odds
        self._sign += int(np.count_nonzero((a > 0) == (b > 0)))

    @property
    def decision(self) -> str:
        """What counts as a decision, for the report; empty where nothing was seen."""
        if not self._count:
            return ""
        if not self._floats:
            return "each value"
        if self._shares or (self._last and not self._image):
            return LAST_AXIS
        if self._channels:
            return AXIS_1
        return "side of 0.5" if self._unit else "sign"

    @property
    def decisions(self) -> int:
        """Number of decisions compared."""
        return self._tallies().get(self.decision, (0, self._count))[1]

    def share(self) -> float | None:
        """Share of equal decisions; None where there was nothing to decide."""
        if not self._count:
            return None
        equal, count = self._tallies()[self.decision]
        return equal / count if count else None

    def standard_error(self) -> float:
        """Return the standard error of `share` over runs, whose decisions are not independent.

        That of a ratio of sums over clusters (Cochran, "Sampling Techniques", 1977, section 6.4);
        0 with fewer than two runs.
        """
        held = [run.get(self.decision, (0, 0)) for run in self._runs]
        sums = np.diff(np.array([(0, 0), *held], np.float64), axis=0)
        total, share = sums[:, 1].sum(), self.share()
        if len(sums) < 2 or share is None or not total:  # noqa: PLR2004 - a spread takes two
            return 0.0
        away = sums[:, 0] - share * sums[:, 1]
        return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(away**2)) / total)

    def _tallies(self) -> dict[str, tuple[int, int]]:
        """Return equal decisions and all of them so far, by what counts as one."""
        return {
            "each value": (self._half, self._count),
            "side of 0.5": (self._half, self._count),
            "sign": (self._sign, self._count),
            LAST_AXIS: (self._rows.agreeing, self._rows.rows),
            AXIS_1: (self._by_channel.agreeing, self._by_channel.rows),
        }


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size > 1
