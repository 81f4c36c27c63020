"""Operators that move, cut, join and reduce, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from structopt_onnx.recovery.call import Call, Inputs, Operator, given, needed, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FAR = 2**62  # what exporters write for "to the end" is about as large


def _shape(call: Call, inputs: Inputs) -> torch.Tensor:
    dims = list(needed(inputs).shape)
    return torch.tensor(dims[call.get("start", 0) : call.get("end", len(dims))], dtype=torch.int64)


def _reshape(call: Call, inputs: Inputs) -> torch.Tensor:
    x, wanted = needed(inputs), numbers(call, inputs, "shape", 1) or []
    if not call.get("allowzero", 0):
        wanted = [x.shape[k] if size == 0 else size for k, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(call: Call, inputs: Inputs) -> torch.Tensor:
    x, axis = needed(inputs), call.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


def _transpose(call: Call, inputs: Inputs) -> torch.Tensor:
    x = needed(inputs)
    return x.permute(call.get("perm", list(range(x.ndim))[::-1]))


def _unsqueeze(call: Call, inputs: Inputs) -> torch.Tensor:
    x, axes = needed(inputs), numbers(call, inputs, "axes", 1) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(call: Call, inputs: Inputs) -> torch.Tensor:
    x, axes = needed(inputs), numbers(call, inputs, "axes", 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _concat(call: Call, inputs: Inputs) -> torch.Tensor:
    return torch.cat([needed(inputs, k) for k in range(len(inputs))], call.get("axis", 0))


def _split(call: Call, inputs: Inputs) -> Sequence[torch.Tensor]:
    x, axis = needed(inputs), call.get("axis", 0)
    sizes = numbers(call, inputs, "split", 1)
    if sizes is None:
        each = -(-x.shape[axis] // call.get("num_outputs", call.outputs))
        return list(torch.split(x, each, axis))
    return list(torch.split(x, sizes, axis))


def _slice(call: Call, inputs: Inputs) -> torch.Tensor:
    x = needed(inputs)
    starts, ends = (numbers(call, inputs, n, k) or [] for k, n in ((1, "starts"), (2, "ends")))
    axes = numbers(call, inputs, "axes", 3) or list(range(len(starts)))
    steps = numbers(call, inputs, "steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        span = range(*slice(start, max(-_FAR, min(end, _FAR)), step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(list(span), dtype=torch.int64))
    return x


def _gather(call: Call, inputs: Inputs) -> torch.Tensor:
    x, indices, axis = needed(inputs), needed(inputs, 1), call.get("axis", 0)
    axis %= x.ndim
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
    found = x.index_select(axis, wrapped.reshape(-1).to(torch.int64))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _expand(call: Call, inputs: Inputs) -> torch.Tensor:
    x, wanted = needed(inputs), numbers(call, inputs, "shape", 1) or []
    return x.expand(torch.broadcast_shapes(x.shape, wanted))


def _tile(call: Call, inputs: Inputs) -> torch.Tensor:
    return needed(inputs).tile(numbers(call, inputs, "repeats", 1) or [])


def _pad(call: Call, inputs: Inputs) -> torch.Tensor:
    x, value = needed(inputs), given(inputs, 2)
    if call.get("mode", "constant") != "constant":
        raise call.refuse(f"mode {call.get('mode')}")
    pads, rank = numbers(call, inputs, "pads", 1) or [], x.ndim
    axes = [axis % rank for axis in numbers(call, inputs, "axes", 3) or range(rank)]
    sides = [0] * (2 * rank)
    for k, axis in enumerate(axes):
        sides[2 * (rank - 1 - axis)] = pads[k]
        sides[2 * (rank - 1 - axis) + 1] = pads[k + len(axes)]
    filler = call.get("value", 0.0) if value is None else value.item()
    return functional.pad(x, sides, value=filler)


def _filled(call: Call, inputs: Inputs) -> torch.Tensor:
    value = call.get("value")
    size = [int(k) for k in needed(inputs).tolist()]
    if value is None:
        return torch.zeros(size, dtype=torch.float32)
    held = torch.from_numpy(value.numpy().copy())
    return held.reshape(()).expand(size)


def _cumulated(call: Call, inputs: Inputs) -> torch.Tensor:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise call.refuse("exclusive or reversed")
    return torch.cumsum(needed(inputs), int(needed(inputs, 1)))


def _reduced(function: Callable[[torch.Tensor, list[int], bool], torch.Tensor]) -> Operator:
    def run(call: Call, inputs: Inputs) -> torch.Tensor:
        x, axes = needed(inputs), numbers(call, inputs, "axes", 1)
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, axes, bool(call.get("keepdims", 1)))

    return run


def _squares(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return (x * x).sum(axes, keepdim=keep)


MOVING: dict[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "CumSum": _cumulated,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: _squares(x, axes, keep).sqrt()),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(_squares),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By the name of the ONNX operator."""
