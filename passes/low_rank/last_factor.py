"""The last of the factors that stand in a layer's place, and how to write new numbers into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.statistic import PatchStatistic, Statistic
from structopt_onnx.passes.convolution import conv_site
from structopt_onnx.passes.low_rank import matmul_site
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

FloatArray = npt.NDArray[np.float64]

_BIAS = 2


@dataclass(frozen=True, eq=False)
class LastFactor:
    """A product with a constant that only one node reads: ``y = A z + b`` per position.

    Parameters
    ----------
    node
        The MatMul, Gemm or Conv.
    weight, turned
        The constant, and whether A is stored as its transpose.
    read, made
        Where z and y, its bias added, are seen.
    bias
        b, float64 [m].
    addend
        The constant that holds ``b / beta`` and that may be written; None where there is none.
    alpha, beta
        Gemm's scales; 1 elsewhere.
    """

    node: ir.Node
    weight: ir.Value
    turned: bool
    read: Statistic
    made: Statistic
    bias: FloatArray
    addend: ir.Value | None
    alpha: float = 1.0
    beta: float = 1.0

    def factor(self) -> FloatArray:
        """Return A, float64 [m, r]; of a kernel's taps r counts every one."""
        stored = np.asarray(_tensor(self.weight).numpy(), np.float64)
        matrix = stored.reshape(len(stored), -1)
        return self.alpha * (matrix.T if self.turned else matrix)

    def stored(self, factor: FloatArray) -> npt.NDArray[Any]:
        """Return a new A as the weight's array."""
        matrix = factor / self.alpha + 0.0  # a zero that was turned is a plain zero
        return _like(self.weight, matrix.T if self.turned else matrix)

    def stored_bias(self, bias: FloatArray) -> npt.NDArray[Any]:
        """Return a new b as the addend's array."""
        if self.addend is None:
            raise ValueError(self.weight.name)
        return _like(self.addend, bias / self.beta)

    def written(
        self, scope: Scope, factor: FloatArray, bias: FloatArray, what: str = "fitted to its inputs"
    ) -> Patch:
        """Describe the edit that writes a new A, and b where it may change."""
        data = {self.weight: self.stored(factor)}
        if self.addend is not None:
            data[self.addend] = self.stored_bias(bias)
        edit = Edit(replace_data={value: ir.tensor(array) for value, array in data.items()})
        return Patch(f"{self.weight.name}: {what}", self.node, {scope: edit})


def last_factor(weight_name: str, scope: Scope, facts: Facts) -> LastFactor | Refusal:
    """Find a last factor by the name of its weight; code ``superseded`` when it is gone."""
    weight = scope.graph.initializers.get(weight_name)
    found = None
    if weight is not None and len(weight.uses()) == 1:
        found = _product(weight_name, scope, facts) or _convolution(weight_name, scope, facts)
    return found or Refusal("superseded", "no product with it alone", weight_name)


def _product(name: str, scope: Scope, facts: Facts) -> LastFactor | None:
    site = matmul_site.site_of(name, scope, facts)
    if isinstance(site, Refusal):
        return None
    (use,) = site.uses
    gemm = use.node.op_type == "Gemm"
    beta = use.node.attributes.get_float("beta", 1.0) if gemm else 1.0
    if use.scale == 0 or beta == 0 or (gemm and use.bias is None):
        return None
    made, addend = use.node.outputs[0], None
    if use.add is not None:
        addend = next(i for i in use.add.inputs if i is not made)
        made = use.add.outputs[0]
    elif gemm and len(use.node.inputs) > _BIAS:
        addend = use.node.inputs[_BIAS]
    outputs = site.shape[0]
    return LastFactor(
        use.node,
        site.weight,
        site.flipped,
        Statistic((use.data.name or "",), use.data_axis),
        Statistic((made.name or "",), use.output_axis),
        np.broadcast_to(np.zeros(1) if use.bias is None else use.bias, (outputs,)),
        _writable(addend, outputs),
        use.scale,
        beta,
    )


def _convolution(name: str, scope: Scope, facts: Facts) -> LastFactor | None:
    site = conv_site.site_of(name, scope, facts, thin=True)  # a factor may well have few channels
    if isinstance(site, Refusal) or site.transposed or site.groups > 1 or site.pads is None:
        return None
    (use,) = site.uses
    names, geometry = (use.data.name or "",), (site.strides, site.dilations, site.pads)
    addend = use.node.inputs[_BIAS] if len(use.node.inputs) > _BIAS else None
    return LastFactor(
        use.node,
        site.weight,
        False,
        PatchStatistic(names, 1, site.kernel, *geometry),
        Statistic((use.made.name or "",), 1),
        np.zeros(site.outputs) if use.bias is None else use.bias,
        _writable(addend, site.outputs),
    )


def _writable(value: ir.Value | None, size: int) -> ir.Value | None:
    """Return a constant of one number per output that nothing else reads, or None."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    outside = value.is_graph_input() or value.is_graph_output() or len(value.uses()) > 1
    return None if outside or value.const_value.size != size else value


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:  # found as a constant
        raise ValueError(value.name)
    return value.const_value


def _like(value: ir.Value, array: FloatArray) -> npt.NDArray[Any]:
    tensor = _tensor(value)
    shaped = array.reshape(tensor.shape.numpy())
    return np.ascontiguousarray(shaped, tensor.dtype.numpy())
