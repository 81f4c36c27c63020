"""Where a constant filter bank meets activations: its uses, its geometry and its bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.passes.convolution.geometry import attributes, integer, integers, pads
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

FloatArray = npt.NDArray[np.float64]

REFUSALS = {
    "weight-not-constant": "the caller can override the weight",
    "weight-dtype": "the weight is not float16 or float32",
    "weight-tied": "something other than a convolution's filters reads the weight too",
    "weight-roles": "the weight is used with different attributes",
    "weight-is-output": "the weight is a graph output",
    "bias-not-constant": "the bias changes from run to run",
    "inside-subgraph": "activations inside a subgraph or function can't be observed",
}
THIN = {
    "depthwise": "each group has one input channel or makes one output channel",
    "first-layer": "the filters read the model's input or hardly any channels, and see little",
}
_OPERATORS = {"Conv", "ConvTranspose"}
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT}
# Weight, input channels and at least one spatial axis.
_LEAST_RANK = 3
# Images have one to four channels; their first layer costs little and loses much. Filters over
# as many numbers as a window of a waveform or a patch of an image are layers like others: on a
# pitch tracker the first, of 512 taps, is worth cutting before any other.
_FEW_CHANNELS = 4
_MANY_NUMBERS = 256


@dataclass(frozen=True, eq=False)
class ConvUse:
    """One convolution with the weight.

    Parameters
    ----------
    node
        The Conv or ConvTranspose.
    bias
        Its constant bias, float64 [m]; None without one.
    """

    node: ir.Node
    bias: FloatArray | None

    @property
    def data(self) -> ir.Value:
        """The activation that is convolved."""
        data = self.node.inputs[0]
        if data is None:  # matched
            raise ValueError(self.node.name)
        return data

    @property
    def made(self) -> ir.Value:
        """The output."""
        return self.node.outputs[0]


@dataclass(frozen=True, eq=False)
class ConvSite:
    """A weight and every convolution that uses it, all with the same attributes.

    Parameters
    ----------
    weight
        The initializer: [m, n / groups, kernel...], or [n, m / groups, kernel...] when
        transposed.
    uses
        All uses, in graph order.
    pads
        Begins, then ends; None where ``auto_pad`` makes them depend on an unknown shape.
    """

    weight: ir.Value
    uses: tuple[ConvUse, ...]
    pads: tuple[int, ...] | None

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The weight as stored."""
        tensor = self.weight.const_value
        if tensor is None:  # matched on a constant
            raise ValueError(self.weight.name)
        return tensor

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight as stored."""
        return tuple(int(d) for d in self.tensor.shape.numpy())

    @property
    def transposed(self) -> bool:
        """Whether the operator is ConvTranspose."""
        return self.uses[0].node.op_type == "ConvTranspose"

    @property
    def groups(self) -> int:
        """Number of groups."""
        return integer(self.uses[0].node, "group", 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along each spatial axis."""
        return self.shape[2:]

    @property
    def taps(self) -> int:
        """Number of positions in the kernel."""
        return math.prod(self.kernel)

    @property
    def strides(self) -> tuple[int, ...]:
        """Step along each spatial axis."""
        return integers(self.uses[0].node, "strides", (1,) * len(self.kernel))

    @property
    def dilations(self) -> tuple[int, ...]:
        """Distance of the kernel's taps along each spatial axis."""
        return integers(self.uses[0].node, "dilations", (1,) * len(self.kernel))

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[1] * self.groups if self.transposed else self.shape[0]

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.shape[0] if self.transposed else self.shape[1] * self.groups

    def blocks(self, facts: Facts) -> FloatArray:
        """Return the filters of each group, float64 [groups, outputs, inputs * taps]."""
        stored = np.asarray(facts.array(self.weight), np.float64)
        groups, outputs, inputs = self.groups, self.outputs, self.inputs
        if self.transposed:
            split = stored.reshape(groups, inputs // groups, outputs // groups, self.taps)
            stored = split.transpose(0, 2, 1, 3)
        return stored.reshape(groups, outputs // groups, inputs // groups * self.taps)


def find_sites(scope: Scope, facts: Facts, *, thin: bool = False) -> Iterator[ConvSite | Refusal]:
    """Yield each weight of convolutions in a scope once, or why it must stay.

    Parameters
    ----------
    scope, facts
        Where to look.
    thin
        Whether depthwise convolutions and first layers are wanted, too.
    """
    seen: set[ir.Value] = set()
    for node in scope.graph:
        if node.domain != "" or node.op_type not in _OPERATORS:
            continue
        weight = node.inputs[1]
        if weight is None or weight in seen or not weight.is_initializer():
            continue
        seen.add(weight)
        found = _site(weight, scope, facts, thin=thin)
        if found is not None:
            yield found


def site_of(
    weight_name: str, scope: Scope, facts: Facts, *, thin: bool = False
) -> ConvSite | Refusal:
    """Find a weight's site again by name; code ``superseded`` when it is gone."""
    weight = scope.graph.initializers.get(weight_name)
    found = None if weight is None else _site(weight, scope, facts, thin=thin)
    return found or Refusal("superseded", "an earlier rewrite took it", weight_name)


def _site(weight: ir.Value, scope: Scope, facts: Facts, *, thin: bool) -> ConvSite | Refusal | None:
    name = weight.name or ""
    tensor = weight.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or len(tensor.shape) < _LEAST_RANK:
        return None
    unfit = _unfit(weight, tensor, scope)
    if unfit is not None:
        return Refusal(*unfit, name)
    uses: list[ConvUse] = []
    for node, index in weight.uses():
        if node.graph is not scope.graph:
            return Refusal("inside-subgraph", f"node '{node.name}' reads it", name)
        use = _use(node, index, facts)
        if isinstance(use, str):
            return Refusal(use, f"{node.op_type} '{node.name}' reads it", name)
        uses.append(use)
    order = {node: position for position, node in enumerate(scope.graph)}
    uses.sort(key=lambda use: order[use.node])
    geometry = {(use.node.op_type, attributes(use.node), pads(use.node, facts)) for use in uses}
    if len(geometry) != 1:
        return Refusal("weight-roles", f"{len(uses)} uses", name)
    ((_, _, padding),) = geometry
    site = ConvSite(weight, tuple(uses), padding)
    unfit = None if thin else _too_thin(site)
    return site if unfit is None else Refusal(*unfit, name)


def _unfit(weight: ir.Value, tensor: ir.TensorProtocol, scope: Scope) -> tuple[str, str] | None:
    if not scope.is_main:
        return "inside-subgraph", scope.path
    if weight.is_graph_input():
        return "weight-not-constant", "it is a graph input as well"
    if weight.is_graph_output():
        return "weight-is-output", "it is a graph output as well"
    if tensor.dtype not in _DTYPES:
        return "weight-dtype", tensor.dtype.name
    return None


def _too_thin(site: ConvSite) -> tuple[str, str] | None:
    groups = site.groups
    if groups > 1 and groups in {site.inputs, site.outputs}:
        return "depthwise", f"{groups} groups"
    if site.inputs * site.taps >= _MANY_NUMBERS:
        return None
    if site.inputs <= _FEW_CHANNELS:
        return "first-layer", f"{site.inputs} input channels"
    if any(use.data.is_graph_input() for use in site.uses):
        return "first-layer", f"it reads the model's input '{site.uses[0].data.name}'"
    return None


def _use(node: ir.Node, index: int, facts: Facts) -> ConvUse | str:
    if node.domain != "" or node.op_type not in _OPERATORS or index != 1:
        return "weight-tied"
    if node.inputs[0] is None or node.inputs[0] is node.inputs[1]:
        return "weight-tied"
    bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - X, W, B
    if bias is None:
        return ConvUse(node, None)
    constant = facts.array(bias)
    if constant is None:
        return "bias-not-constant"
    return ConvUse(node, np.asarray(constant, np.float64).reshape(-1))
