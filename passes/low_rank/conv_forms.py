"""What can stand in a convolution's place: thinner ones in a row, and the edit that puts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode, Operand
from structopt_onnx.model.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.low_rank.conv_site import ConvSite, ConvUse

FloatArray = npt.NDArray[np.float64]

# A split into one axis after the other needs two of them.
_PLANE = 2


@dataclass(frozen=True)
class Stage:
    """One of the convolutions in a row.

    Parameters
    ----------
    name
        Ending of the names of its weight and its output.
    op_type, attributes
        The operator.
    shape
        Of its weight.
    rows_done, columns_done
        Whether its outputs lie on the original's output grid along the first and along every
        other spatial axis; else on the input grid.
    """

    name: str
    op_type: str
    attributes: Mapping[str, AttributeValue]
    shape: tuple[int, ...]
    rows_done: bool = True
    columns_done: bool = True

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Convolutions in a row: a scheme at its ranks.

    Parameters
    ----------
    scheme
        ``channel`` or ``pointwise`` (the same for one tap), ``input``, ``tucker``, ``spatial``
        or ``spatial-transposed``.
    ranks
        Channels between the stages.
    stages
        In order.
    """

    scheme: str
    ranks: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def label(self) -> str:
        """Name of the option."""
        return f"{self.scheme} {'x'.join(map(str, self.ranks))}"


def dense(site: ConvSite) -> Layout:
    """Return the convolution as it is."""
    node = site.uses[0].node
    stage = Stage("w", node.op_type, node.attributes, site.shape, *(not site.transposed,) * 2)
    return Layout("dense", (), (stage,))


def channel(site: ConvSite, rank: int) -> Layout:
    """Thin out the outputs, per group: the kernel to r channels, then 1x1 to all of them."""
    node, groups, thin = site.uses[0].node, site.groups, site.groups * rank
    axes = len(site.kernel)
    if site.transposed:
        shape: tuple[int, ...] = (site.inputs, rank, *site.kernel)
    else:
        shape = (thin, site.inputs // groups, *site.kernel)
    grid = not site.transposed
    first = Stage("thin", node.op_type, node.attributes, shape, grid, grid)
    return Layout(
        "pointwise" if site.taps == 1 else "channel",
        (rank,),
        (first, _pointwise("wide", site.outputs, rank, axes, groups)),
    )


def tucker(site: ConvSite, inner: int, outer: int) -> Layout:
    """Thin out the inputs and, where `outer` is less than all of them, the outputs."""
    axes, node = len(site.kernel), site.uses[0].node
    first = _pointwise("in", inner, site.inputs, axes, done=False)
    core = Stage("core", node.op_type, node.attributes, (outer, inner, *site.kernel))
    if outer >= site.outputs:
        return Layout("input", (inner,), (first, core))
    last = _pointwise("out", site.outputs, outer, axes)
    return Layout("tucker", (inner, outer), (first, core, last))


def spatial(site: ConvSite, rank: int, first_axis: int) -> Layout:
    """Take one spatial axis after the other, with r channels between them."""
    return Layout(
        "spatial-transposed" if first_axis else "spatial",
        (rank,),
        (
            _along(site, first_axis, (rank, site.inputs), first=True),
            _along(site, 1 - first_axis, (site.outputs, rank), first=False),
        ),
    )


def _pointwise(
    name: str, outputs: int, inputs: int, axes: int, groups: int = 1, *, done: bool = True
) -> Stage:
    ones = (1,) * axes
    attributes: dict[str, AttributeValue] = {"kernel_shape": ones}
    if groups > 1:
        attributes["group"] = groups
    return Stage(name, "Conv", attributes, (outputs, inputs, *ones), done, done)


def _along(site: ConvSite, axis: int, channels: tuple[int, int], *, first: bool) -> Stage:
    """Keep one of two spatial axes of a convolution."""

    def kept(values: Sequence[int], other: int) -> tuple[int, ...]:
        return tuple(v if k % _PLANE == axis else other for k, v in enumerate(values))

    node = site.uses[0].node
    kernel = kept(site.kernel, 1)
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": kernel,
        "strides": kept(site.strides, 1),
        "dilations": kept(site.dilations, 1),
    }
    for name in ("auto_pad", "pads"):
        if name in node.attributes:
            given = node.attributes[name]
            attributes[name] = given if name == "auto_pad" else kept(given.as_ints(), 0)
    done = (not first or axis == 0, not first or axis == 1)
    name = "columns" if axis else "rows"
    return Stage(name, "Conv", attributes, (*channels, *kernel), *done)


def rewritten(
    site: ConvSite,
    scope: Scope,
    layout: Layout,
    factors: tuple[Sequence[FloatArray], FloatArray | None],
) -> Patch:
    """Describe the edit that puts convolutions in a row in a weight's place at every use.

    Parameters
    ----------
    site, scope
        The weight and where it lies.
    layout
        What to put there.
    factors
        The weight of each stage, and what the output's mean loses, float64 [m], or None.
    """
    arrays, lost = factors
    weights = [
        _constant(site, stage.name, array.reshape(stage.shape))
        for stage, array in zip(layout.stages, arrays, strict=True)
    ]
    biases: dict[bytes, Fresh] = {}
    edit = Edit(remove=(), add=(), rewire={})
    for use in site.uses:
        nodes = _row(use, layout, weights, _bias(site, use, lost, biases))
        edit = Edit(
            remove=(*edit.remove, use.node),
            add=(*edit.add, *nodes),
            rewire={**edit.rewire, use.made: nodes[-1].outputs[0]},
        )
    shape = "x".join(str(d) for d in site.shape)
    title = f"{site.weight.name}: {shape} as {layout.label}"
    return Patch(title, site.uses[0].node, {scope: edit})


def _row(
    use: ConvUse, layout: Layout, weights: Sequence[Fresh], bias: tuple[Operand, ...]
) -> list[NewNode]:
    nodes: list[NewNode] = []
    data: Operand = use.data
    for stage, weight in zip(layout.stages, weights, strict=True):
        made = Fresh(f"{use.made.name}_{stage.name}")
        last = bias if stage is layout.stages[-1] else ()
        nodes.append(NewNode(stage.op_type, (data, weight, *last), (made,), dict(stage.attributes)))
        data = made
    return nodes


def _bias(
    site: ConvSite, use: ConvUse, lost: FloatArray | None, made: dict[bytes, Fresh]
) -> tuple[Operand, ...]:
    """Return the bias with what the mean loses put back."""
    if lost is None or not lost.any():
        return tuple(use.node.inputs[2:])
    bias = lost if use.bias is None else use.bias + lost
    return (made.setdefault(bias.tobytes(), _constant(site, "bias", bias)),)


def _constant(site: ConvSite, suffix: str, array: FloatArray) -> Fresh:
    data = np.ascontiguousarray(array, site.tensor.dtype.numpy())
    return Fresh(f"{site.weight.name}_{suffix}", ir.tensor(data))
