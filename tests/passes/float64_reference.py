"""A small evaluator of ONNX models in float64, the oracle of exact rewrites of convolutions.

onnxruntime has no float64 convolution on the CPU. Every operator follows its specification by
definition and not by speed; symbols of the standard that are not listed raise KeyError.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable


def evaluate(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a model, computed in float64 throughout."""
    values = {t.name: _wide(onnx.numpy_helper.to_array(t)) for t in proto.graph.initializer}
    values |= {name: _wide(array) for name, array in feeds.items()}
    (opset,) = (o.version for o in proto.opset_import if o.domain == "")
    for node in proto.graph.node:
        attributes = {a.name: _plain(a) for a in node.attribute}
        inputs = [values[name] if name else None for name in node.input]
        made = _OPERATORS[node.op_type](inputs, attributes | {"opset": opset})
        values[node.output[0]] = made
    return {output.name: values[output.name] for output in proto.graph.output}


def _plain(attribute: onnx.AttributeProto):
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def geometry(sizes, kernel, a, *, ceil: bool = False):
    """Return span, strides, dilations, pads and number of outputs per spatial axis."""
    axes = len(kernel)
    strides, dilations = a.get("strides", [1] * axes), a.get("dilations", [1] * axes)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = a.get("auto_pad", "NOTSET")
    pads = list(a.get("pads", [0] * 2 * axes)) if mode == "NOTSET" else [0] * 2 * axes
    if mode.startswith("SAME"):
        for i, (n, s, k) in enumerate(zip(sizes, strides, span, strict=True)):
            total = max(0, (math.ceil(n / s) - 1) * s + k - n)
            less, more = total // 2, total - total // 2
            pads[i], pads[i + axes] = (less, more) if mode == "SAME_UPPER" else (more, less)
    outputs = []
    for i, (n, s, k) in enumerate(zip(sizes, strides, span, strict=True)):
        room = n + pads[i] + pads[i + axes] - k
        count = (math.ceil(room / s) if ceil else room // s) + 1
        if ceil and (count - 1) * s >= n + pads[i]:
            count -= 1  # a window must not start in the padding
        outputs.append(count)
    return span, strides, dilations, pads, outputs


def _windows(x, fill, slides):
    """Return ``[N, C, *outputs, *kernel]``; positions beyond the padding hold `fill`."""
    span, strides, dilations, pads, outputs = slides
    axes = len(span)
    around = [(0, 0), (0, 0)]
    for i in range(axes):
        needed = (outputs[i] - 1) * strides[i] + span[i]
        around.append((pads[i], max(pads[i + axes], needed - x.shape[2 + i] - pads[i])))
    padded = np.pad(x, around, constant_values=fill)
    views = sliding_window_view(padded, span, axis=tuple(range(2, 2 + axes)))
    picks = [slice(None)] * 2
    picks += [slice(0, (o - 1) * s + 1, s) for o, s in zip(outputs, strides, strict=True)]
    picks += [slice(None, None, d) for d in dilations]
    return views[tuple(picks)]


def _conv(inputs, a):
    x, w, b = (*inputs, None)[:3]
    kernel, groups = w.shape[2:], a.get("group", 1)
    axes = len(kernel)
    seen = _windows(x, 0.0, geometry(x.shape[2:], kernel, a))
    parts = []
    for xs, ws in zip(np.split(seen, groups, 1), np.split(w, groups, 0), strict=True):
        over = tuple(range(2 + axes, 2 + 2 * axes))
        made = np.tensordot(xs, ws, axes=((1, *over), tuple(range(1, 2 + axes))))
        parts.append(np.moveaxis(made, -1, 1))
    y = np.concatenate(parts, 1)
    return y if b is None else y + b.reshape(1, -1, *[1] * axes)


def _max_pool(inputs, a):
    (x,) = inputs
    kernel = a["kernel_shape"]
    slides = geometry(x.shape[2:], kernel, a, ceil=bool(a.get("ceil_mode", 0)))
    return _windows(x, -np.inf, slides).max(axis=tuple(range(-len(kernel), 0)))


def _average_pool(inputs, a):
    (x,) = inputs
    kernel = a["kernel_shape"]
    slides = geometry(x.shape[2:], kernel, a, ceil=bool(a.get("ceil_mode", 0)))
    over = tuple(range(-len(kernel), 0))
    pads = slides[3]
    axes = len(kernel)
    counted = np.ones((1, 1, *x.shape[2:]))
    if a.get("count_include_pad", 0):
        around = [(0, 0), (0, 0), *((pads[i], pads[i + axes]) for i in range(axes))]
        counted = np.pad(counted, around, constant_values=1.0)
        unpadded = (*slides[:3], [0] * 2 * axes, slides[4])
        count = _windows(counted, 0.0, unpadded).sum(axis=over)
    else:
        count = _windows(counted, 0.0, slides).sum(axis=over)
    return _windows(x, 0.0, slides).sum(axis=over) / count


def _global_average_pool(inputs, _):
    (x,) = inputs
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


def _reduce_mean(inputs, a):
    axes = a.get("axes") if len(inputs) == 1 else inputs[1].tolist()
    return inputs[0].mean(
        axis=None if axes is None else tuple(axes), keepdims=bool(a.get("keepdims", 1))
    )


def _batch_normalization(inputs, a):
    x, scale, bias, mean, variance = inputs
    shape = (1, -1, *[1] * (x.ndim - 2))
    factor = scale / np.sqrt(variance + a.get("epsilon", 1e-5))
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)


def _pad(inputs, _):
    x, pads = inputs[:2]
    half = len(pads) // 2
    around = list(zip(pads[:half], pads[half:], strict=True))
    cropped = tuple(
        slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(around, x.shape, strict=True)
    )
    fill = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return np.pad(x[cropped], [(max(0, b), max(0, e)) for b, e in around], constant_values=fill)


def _slice(inputs, _):
    x, starts, ends, axes, *steps = inputs
    picks = [slice(None)] * x.ndim
    strides = steps[0] if steps else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        picks[axis] = slice(int(start), int(end), int(step))
    return x[tuple(picks)]


def _gemm(inputs, a):
    x, w = (i.T if a.get(k, 0) else i for i, k in zip(inputs, ("transA", "transB"), strict=False))
    y = a.get("alpha", 1.0) * (x @ w)
    return y if len(inputs) == 2 else y + a.get("beta", 1.0) * inputs[2]


def _softmax(inputs, a):
    axis = a.get("axis", -1)
    shifted = np.exp(inputs[0] - inputs[0].max(axis, keepdims=True))
    return shifted / shifted.sum(axis, keepdims=True)


def _concat(inputs, a):
    return np.concatenate(inputs, axis=a["axis"])


def _squeeze(inputs, a):
    axes = a["axes"] if len(inputs) == 1 else inputs[1].tolist()
    return np.squeeze(inputs[0], tuple(axes))


def _one(function: Callable) -> Callable:
    return lambda inputs, a: function(*inputs)


def _fold(function: Callable) -> Callable:
    return lambda inputs, a: list(itertools.accumulate(inputs, function))[-1]


_OPERATORS: dict[str, Callable] = {
    "Add": _fold(np.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": lambda inputs, a: inputs[0],
    "Concat": _concat,
    "Conv": _conv,
    "Div": _one(np.divide),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _one(lambda x: x),
    "LeakyRelu": lambda inputs, a: np.where(inputs[0] < 0, a["alpha"] * inputs[0], inputs[0]),
    "MatMul": _one(np.matmul),
    "MaxPool": _max_pool,
    "Mul": _fold(np.multiply),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _one(lambda x: np.maximum(x, 0)),
    "Sigmoid": _one(lambda x: 1 / (1 + np.exp(-x))),
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _one(np.subtract),
    "Tanh": _one(np.tanh),
    "Transpose": lambda inputs, a: np.transpose(inputs[0], a["perm"]),
}
