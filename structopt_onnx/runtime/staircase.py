"""Which ranks the machine runs no slower than the ones below them: steps of a staircase, timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from structopt_onnx.rewriting.region import Region, RegionInput, RegionWeight
from structopt_onnx.runtime.micro_benchmark import MicroSettings, time_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from structopt_onnx.runtime.cost_cache import CostCache

Kind = Literal["matmul", "conv"]

_OPSET, _IR = 17, 8
_RANKS = range(33, 81)
_STEPS = (2, 4, 8, 16, 32)
# A step is believed when times lie this close to its staircase, and so much closer than to a line.
_CLOSE = 0.05
_CLOSER = 0.6
_NONE = 1.0
# Others at work can hide the steps from one attempt; the fastest of several counts.
_ATTEMPTS = 3


def rank_multiple(kind: Kind, cache: CostCache, seconds: float, threads: int = 1) -> int | None:
    """Return the multiple that ranks between cost as much as, measured once per machine.

    A pair of thin products, or of thin convolutions, is timed at each of a range of ranks. The
    multiple is that of the staircase that fits the times best.

    Parameters
    ----------
    kind
        ``matmul`` or ``conv``.
    cache
        Where the answer is looked up and kept.
    seconds
        Time for it.
    threads
        Threads inside one operator.

    Returns
    -------
    int or None
        None where times rise evenly, or where noise hides the steps.
    """
    key = f"rank multiple of {kind}"
    known = cache.get(key)
    if known is None:
        make = _matmuls if kind == "matmul" else _convolutions
        settings = MicroSettings(seconds, rounds=40, threads=threads, working_set=2**29)
        fastest = np.full(len(_RANKS), np.inf)
        step = None
        for _ in range(_ATTEMPTS):
            found = time_regions([make(rank) for rank in _RANKS], settings)
            times = [time for time in found if time is not None]
            if len(times) < len(_RANKS):
                return None
            fastest = np.minimum(fastest, times)
            step = step_of(_RANKS, fastest)
            if step is not None:
                break
        known = step or _NONE
        cache.put(key, known)
        cache.save()
    return int(known) if known > _NONE else None


def step_of(ranks: Sequence[int], seconds: npt.ArrayLike) -> int | None:
    """Return the step of the staircase that times follow, or None where none is clear.

    Parameters
    ----------
    ranks, seconds
        Ranks in a row and the time at each.
    """
    times = np.asarray(seconds, np.float64)
    times = times / times.mean()
    line = _misfit(np.asarray(ranks), times, 1)
    step = min(_STEPS, key=lambda s: _misfit(np.asarray(ranks), times, s))
    misfit = _misfit(np.asarray(ranks), times, step)
    return step if misfit <= min(_CLOSE, _CLOSER * line) else None


def _misfit(ranks: np.ndarray, times: np.ndarray, step: int) -> float:
    """Return the root mean square of what the best ``a + b * (rank rounded up)`` leaves."""
    whole = -(-ranks // step) * step
    if whole.min() == whole.max():
        return float("inf")
    slope, offset = np.polyfit(whole, times, 1)
    return float(np.sqrt(np.mean((times - slope * whole - offset) ** 2)))


def _matmuls(rank: int) -> Region:
    return _pair("MatMul", (64, 384), (384, rank), (rank, 384))


def _convolutions(rank: int) -> Region:
    return _pair("Conv", (1, 64, 14, 14), (rank, 64, 3, 3), (64, rank, 1, 1), pads=[1, 1, 1, 1])


def _pair(
    op_type: str,
    data: tuple[int, ...],
    first: tuple[int, ...],
    second: tuple[int, ...],
    **attributes: Any,  # noqa: ANN401 - an attribute may be of any type
) -> Region:
    graph = onnx.GraphProto(name="pair")
    graph.node.append(onnx.helper.make_node(op_type, ["x", "a"], ["t"], **attributes))
    graph.node.append(onnx.helper.make_node(op_type, ["t", "b"], ["y"]))
    graph.output.add().name = "y"
    float32 = ir.DataType.FLOAT
    weights = (RegionWeight("a", float32, first), RegionWeight("b", float32, second))
    return Region((RegionInput("x", float32, data),), weights, graph, _OPSET, _IR)
