"""How often two outputs that look like class scores choose the same class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.validation.values import is_float

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 1 << 16
"""Elements brought to float64 at a time: few enough to stay in a core's cache."""


class ClassAgreement:
    """Share of rows in which two outputs have their largest entry at the same place.

    An output looks like classes if it is a real float tensor of rank 2 or more whose last axis has
    one size of at least 2 in every sample; its rows run along that axis.
    """

    def __init__(self) -> None:
        self._sizes: set[int] = set()
        self._rows = self._agreeing = 0

    def update(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Count the rows of one pair of tensors; pairs that are no class scores count nothing."""
        if a.shape != b.shape or not a.ndim or not (is_float(a.dtype) and is_float(b.dtype)):
            return
        classes = a.shape[-1]
        self._sizes.add(classes)
        if a.ndim == 1 or classes <= 1 or a.dtype.kind == "c":
            return
        x, y = a.reshape(-1, classes), b.reshape(-1, classes)
        step = max(1, CHUNK // classes)
        for start in range(0, len(x), step):
            p = x[start : start + step].astype(np.float64)
            q = y[start : start + step].astype(np.float64)
            known = ~(np.isnan(p).any(axis=1) | np.isnan(q).any(axis=1))
            p, q = p[known], q[known]
            # Any of several largest entries will do: a tie names no class.
            chosen = np.take_along_axis(p, q.argmax(axis=1)[:, None], axis=1)[:, 0]
            self._rows += len(p)
            self._agreeing += int(np.count_nonzero(chosen == p.max(axis=1)))

    @property
    def rows(self) -> int:
        """Number of rows compared."""
        return self._rows

    @property
    def agreeing(self) -> int:
        """Number of them that agree."""
        return self._agreeing

    def share(self) -> float | None:
        """Share of agreeing rows; None where the output does not look like classes."""
        if len(self._sizes) != 1 or self._rows == 0:
            return None
        return self._agreeing / self._rows
