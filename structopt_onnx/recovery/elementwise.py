"""Operators that work number by number, in torch."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import onnx
import torch
from torch.nn import functional

from structopt_onnx.recovery.call import Call, Inputs, Operator, given, needed

if TYPE_CHECKING:
    from collections.abc import Callable

_TORCH_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def _one(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda _, inputs: function(needed(inputs))


def _two(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda _, inputs: function(needed(inputs), needed(inputs, 1))


def _folded(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda _, inputs: reduce(function, [needed(inputs, k) for k in range(len(inputs))])


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mean(call: Call, inputs: Inputs) -> torch.Tensor:
    total = _folded(torch.add)(call, inputs)
    assert isinstance(total, torch.Tensor)  # noqa: S101
    return total / len(inputs)


def _cast(call: Call, inputs: Inputs) -> torch.Tensor:
    wanted = _TORCH_TYPES.get(call.get("to"))
    if wanted is None:
        raise call.refuse("to a type that torch has not")
    return needed(inputs).to(wanted)


def _clip(call: Call, inputs: Inputs) -> torch.Tensor:
    low = given(inputs, 1) if "min" not in call.attributes else call.get("min")
    high = given(inputs, 2) if "max" not in call.attributes else call.get("max")
    found = needed(inputs)
    return found if low is None and high is None else torch.clamp(found, low, high)


def _prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, slope * x, x)


def _hard_sigmoid(call: Call, inputs: Inputs) -> torch.Tensor:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    return torch.clamp(alpha * needed(inputs) + beta, 0, 1)


def _gelu(call: Call, inputs: Inputs) -> torch.Tensor:
    return functional.gelu(needed(inputs), approximate=call.get("approximate", "none"))


def _elu(call: Call, inputs: Inputs) -> torch.Tensor:
    return functional.elu(needed(inputs), call.get("alpha", 1.0))


def _leaky_relu(call: Call, inputs: Inputs) -> torch.Tensor:
    return functional.leaky_relu(needed(inputs), call.get("alpha", 0.01))


def _where(_: Call, inputs: Inputs) -> torch.Tensor:
    return torch.where(needed(inputs), needed(inputs, 1), needed(inputs, 2))


def _dropout(call: Call, inputs: Inputs) -> torch.Tensor:
    training = given(inputs, 2)
    if call.outputs > 1 or (training is not None and bool(training)):
        raise call.refuse("in training mode")
    return needed(inputs)


def _softmax(
    function: Callable[..., torch.Tensor],
) -> Operator:
    def run(call: Call, inputs: Inputs) -> torch.Tensor:
        x = needed(inputs)
        if call.opset >= 13:  # noqa: PLR2004 - since when one axis is meant
            return function(x, dim=call.get("axis", -1))
        axis = call.get("axis", 1) % max(1, x.ndim)
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _one(torch.abs),
    "Add": _two(torch.add),
    "And": _two(torch.logical_and),
    "Cast": _cast,
    "Ceil": _one(torch.ceil),
    "Clip": _clip,
    "Cos": _one(torch.cos),
    "Div": _two(_divide),
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _two(torch.eq),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Floor": _one(torch.floor),
    "Gelu": _gelu,
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _one(functional.hardswish),
    "Identity": _one(lambda x: x),
    "LeakyRelu": _leaky_relu,
    "Less": _two(torch.lt),
    "LessOrEqual": _two(torch.le),
    "Log": _one(torch.log),
    "LogSoftmax": _softmax(functional.log_softmax),
    "Max": _folded(torch.maximum),
    "Mean": _mean,
    "Min": _folded(torch.minimum),
    "Mish": _one(functional.mish),
    "Mul": _two(torch.mul),
    "Neg": _one(torch.neg),
    "Not": _one(torch.logical_not),
    "Or": _two(torch.logical_or),
    "PRelu": _two(_prelu),
    "Pow": _two(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "Reciprocal": _one(torch.reciprocal),
    "Relu": _one(torch.relu),
    "Sigmoid": _one(torch.sigmoid),
    "Sign": _one(torch.sign),
    "Sin": _one(torch.sin),
    "Softmax": _softmax(functional.softmax),
    "Softplus": _one(functional.softplus),
    "Softsign": _one(functional.softsign),
    "Sqrt": _one(torch.sqrt),
    "Sub": _two(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _one(torch.tanh),
    "Where": _where,
}
"""By the name of the ONNX operator."""
