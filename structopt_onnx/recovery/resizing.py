"""Resize by nearest or linear interpolation, in torch (ONNX operator specification, Resize)."""

from __future__ import annotations

import torch

from structopt_onnx.recovery.call import Call, Inputs, given, needed


def resize(call: Call, inputs: Inputs) -> torch.Tensor:
    """Interpolate axis by axis.

    Raises
    ------
    NotDifferentiableError
        For cubic interpolation, antialiasing, crops and policies that keep the aspect.
    """
    x, scales, sizes = needed(inputs), given(inputs, 2), given(inputs, 3)
    mode, coordinates = (
        call.get("mode", "nearest"),
        call.get("coordinate_transformation_mode", "half_pixel"),
    )
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if mode not in ("nearest", "linear") or call.get("antialias", 0) or policy != "stretch":
        raise call.refuse(f"mode {mode}, antialias or {policy}")
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    for k, axis in enumerate(axes):
        old = x.shape[axis]
        if sizes is not None and sizes.numel():
            new = int(sizes[k])
            scale = new / old
        else:
            assert scales is not None, "the model was checked"  # noqa: S101
            scale = float(scales[k])
            new = int(old * scale)
        if scale == 1:
            continue
        at = _coordinates(call, coordinates, old, new, scale)
        if mode == "nearest":
            x = x.index_select(axis, _nearest(call, at).clamp(0, old - 1))
        else:
            at = at.clamp(0, old - 1)
            low = at.floor()
            weight = (at - low).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
            first, second = low.long(), (low.long() + 1).clamp(max=old - 1)
            x = x.index_select(axis, first) * (1 - weight) + x.index_select(axis, second) * weight
    return x


def _coordinates(call: Call, mode: str, old: int, new: int, scale: float) -> torch.Tensor:
    k = torch.arange(new, dtype=torch.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        return (k + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return k * 0
    if mode == "asymmetric":
        return k / scale
    if mode == "align_corners":
        return k * ((old - 1) / max(1, new - 1))
    raise call.refuse(f"coordinates {mode}")


def _nearest(call: Call, at: torch.Tensor) -> torch.Tensor:
    how = call.get("nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": torch.ceil(at - 0.5),
        "round_prefer_ceil": torch.floor(at + 0.5),
        "floor": torch.floor(at),
        "ceil": torch.ceil(at),
    }
    return rounded[how].long()
