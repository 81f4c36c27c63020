"""Convolutions in a row that stand in another one's place, and the edit that puts them there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode, Operand
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.taps import sliced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.convolution.conv_site import ConvSite, ConvUse

FloatArray = npt.NDArray[np.float64]


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
    crop
        Padding, begins then ends, where it is below 0: what is sliced off the input first.
    """

    name: str
    op_type: str
    attributes: Mapping[str, AttributeValue]
    shape: tuple[int, ...]
    rows_done: bool = True
    columns_done: bool = True
    crop: tuple[int, ...] = ()

    @property
    def nodes(self) -> int:
        """Number of operators."""
        return 2 if min(self.crop, default=0) < 0 else 1

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
        What is done, such as ``tucker``.
    ranks
        Numbers that go with it: channels between the stages.
    stages
        In order.
    """

    scheme: str
    ranks: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def label(self) -> str:
        """Name of the option."""
        return f"{self.scheme} {'x'.join(map(str, self.ranks))}".rstrip()

    @property
    def output_rank(self) -> int:
        """Channels kept of the outputs, per group; 0 where it is no cut of them alone."""
        return self.ranks[0] if self.scheme in {"channel", "pointwise"} else 0


def dense(site: ConvSite) -> Layout:
    """Return the convolution as it is."""
    node = site.uses[0].node
    stage = Stage("w", node.op_type, node.attributes, site.shape, *(not site.transposed,) * 2)
    return Layout("dense", (), (stage,))


def pointwise(
    name: str, outputs: int, inputs: int, axes: int, groups: int = 1, *, done: bool = True
) -> Stage:
    """Return a convolution of one tap, from `inputs` channels per group to `outputs` in all."""
    ones = (1,) * axes
    attributes: dict[str, AttributeValue] = {"kernel_shape": ones}
    if groups > 1:
        attributes["group"] = groups
    return Stage(name, "Conv", attributes, (outputs, inputs, *ones), done, done)


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
        if min(stage.crop, default=0) < 0:
            source, data = data, Fresh(f"{use.made.name}_sliced")
            nodes.append(sliced(source, data, stage.crop))
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
