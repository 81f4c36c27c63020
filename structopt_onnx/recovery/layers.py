"""Products, convolutions, pools and normalizations, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from structopt_onnx.recovery.call import Call, Inputs, Operator, given, needed

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MAPS = 2  # axes before the spatial ones


def _gemm(call: Call, inputs: Inputs) -> torch.Tensor:
    a, b, c = needed(inputs), needed(inputs, 1), given(inputs, 2)
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    product = call.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + call.get("beta", 1.0) * c


def _einsum(call: Call, inputs: Inputs) -> torch.Tensor:
    terms = [needed(inputs, k) for k in range(len(inputs))]
    found: torch.Tensor = torch.einsum(call.get("equation"), *terms)
    return found


def _geometry(
    call: Call, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and pads (all begins, then all ends)."""
    n = len(sizes)
    strides = list(call.get("strides", [1] * n))
    dilations = list(call.get("dilations", [1] * n))
    pads = list(call.get("pads", [0] * (2 * n)))
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for k in range(n):
            steps = -(-sizes[k] // strides[k])
            reach = dilations[k] * (kernel[k] - 1) + 1
            total = max(0, (steps - 1) * strides[k] + reach - sizes[k])
            small, large = total // 2, total - total // 2
            pads[k], pads[n + k] = (small, large) if auto == "SAME_UPPER" else (large, small)
    return strides, dilations, pads


def _padded(x: torch.Tensor, pads: Sequence[int], value: float = 0.0) -> torch.Tensor:
    n = len(pads) // 2
    sides = [side for k in reversed(range(n)) for side in (pads[k], pads[n + k])]
    return functional.pad(x, sides, value=value) if any(sides) else x


def _conv(call: Call, inputs: Inputs) -> torch.Tensor:
    x, weight = needed(inputs), needed(inputs, 1)
    strides, dilations, pads = _geometry(call, x.shape[_MAPS:], weight.shape[_MAPS:])
    return _CONV[x.ndim - _MAPS](
        _padded(x, pads), weight, given(inputs, 2), strides, 0, dilations, call.get("group", 1)
    )


def _conv_transpose(call: Call, inputs: Inputs) -> torch.Tensor:
    x, weight = needed(inputs), needed(inputs, 1)
    n = x.ndim - _MAPS
    if "output_shape" in call.attributes or call.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        raise call.refuse("output_shape or auto_pad")
    strides, dilations, pads = _geometry(call, x.shape[_MAPS:], weight.shape[_MAPS:])
    more = list(call.get("output_padding", [0] * n))
    whole = _CONV_TRANSPOSE[n](
        x, weight, given(inputs, 2), strides, 0, 0, call.get("group", 1), dilations
    )
    # The bias is also where only output_padding reaches.
    bias = given(inputs, 2)
    if any(more):
        whole = _CONV_TRANSPOSE[n](x, weight, None, strides, 0, 0, call.get("group", 1), dilations)
        whole = _padded(whole, [0] * n + more)
        whole = whole if bias is None else whole + bias.reshape(-1, *[1] * n)
    for k in range(n):
        size = whole.shape[_MAPS + k]
        whole = whole.narrow(_MAPS + k, pads[k], size - pads[k] - pads[n + k])
    return whole


def _pool_pads(call: Call, x: torch.Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations and pads; the ends grow where `ceil_mode` asks for it."""
    kernel = list(call.get("kernel_shape"))
    sizes, n = x.shape[_MAPS:], len(kernel)
    strides, dilations, pads = _geometry(call, sizes, kernel)
    if call.get("ceil_mode", 0):
        for k in range(n):
            reach = dilations[k] * (kernel[k] - 1) + 1
            free = sizes[k] + pads[k] + pads[n + k] - reach
            steps = -(-free // strides[k])
            if steps * strides[k] >= sizes[k] + pads[k]:
                steps -= 1  # no window starts behind the input
            pads[n + k] += max(0, steps * strides[k] - free)
    return kernel, strides, dilations, pads


def _max_pool(call: Call, inputs: Inputs) -> torch.Tensor:
    x = needed(inputs)
    if call.outputs > 1:
        raise call.refuse("its indices are read")
    kernel, strides, dilations, pads = _pool_pads(call, x)
    filled = _padded(x, pads, float("-inf"))
    return _MAX_POOL[len(kernel)](filled, kernel, strides, 0, dilations)


def _average_pool(call: Call, inputs: Inputs) -> torch.Tensor:
    x = needed(inputs)
    given_pads = _geometry(call, x.shape[_MAPS:], call.get("kernel_shape"))[2]
    kernel, strides, dilations, pads = _pool_pads(call, x)
    n, channels = len(kernel), x.shape[1]
    ones = torch.ones(channels, 1, *kernel, dtype=x.dtype)
    counted = torch.ones(1, 1, *x.shape[_MAPS:], dtype=x.dtype)
    if call.get("count_include_pad", 0):
        counted = _padded(counted, given_pads, 1.0)
        pads_left = [p - g for p, g in zip(pads, given_pads, strict=True)]
    else:
        pads_left = pads
    conv = _CONV[n]
    total = conv(_padded(x, pads), ones, None, strides, 0, dilations, channels)
    return total / conv(_padded(counted, pads_left), ones[:1], None, strides, 0, dilations)


def _global(reduce: Any) -> Operator:  # noqa: ANN401 - a function of torch
    def run(_: Call, inputs: Inputs) -> torch.Tensor:
        x = needed(inputs)
        found: torch.Tensor = reduce(x, list(range(_MAPS, x.ndim)), keepdim=True)
        return found

    return run


def _per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, -1, *[1] * (like.ndim - _MAPS))


def _batch_normalization(call: Call, inputs: Inputs) -> torch.Tensor:
    if call.get("training_mode", 0) or call.outputs > 1:
        raise call.refuse("in training mode")
    x = needed(inputs)
    scale, bias, mean, variance = (_per_channel(needed(inputs, k), x) for k in range(1, 5))
    return (x - mean) / torch.sqrt(variance + call.get("epsilon", 1e-5)) * scale + bias


def _layer_normalization(call: Call, inputs: Inputs) -> Sequence[torch.Tensor]:
    x, bias = needed(inputs), given(inputs, 2)
    axes = list(range(call.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    variance = (centred * centred).mean(axes, keepdim=True)
    scale = 1 / torch.sqrt(variance + call.get("epsilon", 1e-5))
    found = centred * scale * needed(inputs, 1)
    return (found if bias is None else found + bias), mean, scale


def _instance_normalization(call: Call, inputs: Inputs) -> torch.Tensor:
    x = needed(inputs)
    axes = list(range(_MAPS, x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    found = centred / torch.sqrt(variance + call.get("epsilon", 1e-5))
    return found * _per_channel(needed(inputs, 1), x) + _per_channel(needed(inputs, 2), x)


LAYERS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "MatMul": lambda _, inputs: needed(inputs) @ needed(inputs, 1),
    "MaxPool": _max_pool,
}
"""By the name of the ONNX operator."""
