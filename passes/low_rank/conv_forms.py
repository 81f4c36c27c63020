"""Thinner convolutions in a row that come close to a convolution, scheme by scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.passes.convolution.conv_rows import Layout, Stage, pointwise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.passes.convolution.conv_site import ConvSite

# A split into one axis after the other needs two of them.
_PLANE = 2


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
        (first, pointwise("wide", site.outputs, rank, axes, groups)),
    )


def tucker(site: ConvSite, inner: int, outer: int) -> Layout:
    """Thin out the inputs and, where `outer` is less than all of them, the outputs."""
    axes, node = len(site.kernel), site.uses[0].node
    first = pointwise("in", inner, site.inputs, axes, done=False)
    core = Stage("core", node.op_type, node.attributes, (outer, inner, *site.kernel))
    if outer >= site.outputs:
        return Layout("input", (inner,), (first, core))
    last = pointwise("out", site.outputs, outer, axes)
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
