"""Joint moments of an activation of one model and one of another on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.linalg.moments import Moments, MomentsAccumulator
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.statistic import Statistic


@dataclass(frozen=True)
class Pair:
    """Two activations that are observed position by position.

    Parameters
    ----------
    read
        What to see of the first model, one tensor.
    made
        What to see of the second one; as many observations per run.
    """

    read: Statistic
    made: Statistic


def paired_moments(
    first: ir.Model,
    second: ir.Model,
    samples: Samples,
    pairs: Sequence[Pair],
    *,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> Iterator[tuple[Pair, Moments]]:
    """Run both models on every sample and pool what the pairs show, side by side.

    Everything is observed before the first yield; what was yielded is not held any longer.

    Parameters
    ----------
    first, second
        The models; never changed.
    samples
        The inputs, run one by one.
    pairs
        What to look at. Left out is a pair that met infinity or NaN, whose sides differ in
        their number of observations, or that never showed anything.
    threads, libraries
        Of the sessions.

    Yields
    ------
    Pair
        As given, in order.
    Moments
        Of [features of `read`, features of `made`], float64.
    """
    held: dict[Pair, MomentsAccumulator] = {}
    for pair, rows in side_by_side(
        first, second, samples, pairs, threads=threads, libraries=libraries
    ):
        if rows is None:
            held.pop(pair, None)
        elif len(rows):
            held.setdefault(pair, MomentsAccumulator(rows.shape[1])).update(rows)
    for pair in pairs:
        if pair in held:
            yield pair, held.pop(pair).moments()


def side_by_side(
    first: ir.Model,
    second: ir.Model,
    samples: Samples,
    pairs: Sequence[Pair],
    *,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> Iterator[tuple[Pair, npt.NDArray[Any] | None]]:
    """Run both models on every sample and yield what each pair shows of it, features last.

    The parameters are those of `paired_moments`. A pair that can't be used yields None and is
    not looked at any more.
    """

    def opened(model: ir.Model, wanted: Sequence[Statistic]) -> Session:
        fed = {value.name for value in model.graph.inputs}
        names = tuple(dict.fromkeys(n for s in wanted for n in s.reads() if n not in fed))
        return Session(model, outputs=names, threads=threads, libraries=libraries)

    sessions = opened(first, [p.read for p in pairs]), opened(second, [p.made for p in pairs])
    wanted = list(pairs)
    for feeds in samples:
        arrays, others = (feeds | session.run(feeds) for session in sessions)
        for pair in list(wanted):
            rows = _side_by_side(pair, arrays, others)
            if rows is None:
                wanted.remove(pair)
            yield pair, rows


def _side_by_side(
    pair: Pair, arrays: dict[str, Any], others: dict[str, Any]
) -> npt.NDArray[Any] | None:
    sides = []
    for statistic, found in ((pair.read, arrays), (pair.made, others)):
        rows = statistic.rows(found[statistic.values[0]], found)
        sides.append(rows.reshape(-1, rows.shape[-1]))
    if len(sides[0]) != len(sides[1]):
        return None
    rows = np.concatenate(sides, axis=1)
    return rows if np.isfinite(rows).all() else None
