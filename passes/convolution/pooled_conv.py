"""A convolution whose result is only averaged, and the cheaper ways to get the same average."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Fresh, NewNode
from structopt_onnx.passes.convolution.geometry import Window, integer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from structopt_onnx.model.facts import Facts

# What averaging one element costs next to a multiply-accumulate: pools are bound by memory.
_MACS_PER_TAP = 10
_DILATED_POOLS = 19  # opset in which AveragePool has dilations
_PADS_BY_INPUT = 11  # opset in which Pad takes its padding as an input


@dataclass(frozen=True, eq=False)
class PooledConv:
    """A convolution and the average that reads it.

    Parameters
    ----------
    conv, pool
        The two nodes.
    slides
        Window of the convolution; None where it has one tap, no padding and stride 1.
    averages
        Window of the average over the convolution's outputs; None for all of them, however
        many, or where the pool can be moved as it is.
    is_global
        Whether the average is over the whole map.
    weight
        The convolution's weight where it is stored, for forms that need another.
    opset
        Says whether pools have dilations, and whether Pad takes its padding as an input.
    """

    conv: ir.Node
    pool: ir.Node
    slides: Window | None
    averages: Window | None
    is_global: bool
    weight: ir.TensorProtocol | None
    opset: int


@dataclass(frozen=True)
class Form:
    """One way to write a pooled convolution.

    Parameters
    ----------
    label
        Said in the patch's title.
    pool, conv
        Attributes of the two nodes, in that order; `pool` None where one convolution does it.
    kernel
        New weight, None to keep the present one.
    pads
        Zeros that a Pad puts around the input, where they are more than runtimes let a pool pad.
    """

    label: str
    pool: Mapping[str, AttributeValue] | None
    conv: Mapping[str, AttributeValue]
    kernel: np.ndarray | None = None
    pads: tuple[int, ...] = ()


def forms(site: PooledConv, sizes: tuple[int, ...] | None) -> Iterator[Form]:
    """Yield the forms that are exact at a site.

    Parameters
    ----------
    site
        The convolution and its average.
    sizes
        Static spatial sizes of the convolution's input, None where they may change.
    """
    slides, averages = site.slides, site.averages
    if slides is None:
        pool = {} if site.is_global else dict(site.pool.attributes)
        yield Form("the average comes first", pool, dict(site.conv.attributes))
        return
    if averages is None:
        return
    first = _global(site, slides, averages, sizes) if site.is_global else _swapped(slides, averages)
    if first is not None and (_runs(first.pads, averages.kernel) or site.opset >= _PADS_BY_INPUT):
        yield _averaged_first(site, slides, averages, first)
    if not site.is_global and site.weight is not None:
        yield _composed(site, slides, averages, site.weight.numpy())


def _averaged_first(site: PooledConv, slides: Window, averages: Window, first: Window) -> Form:
    """Average by one window, then convolve what is left."""
    zero = (0,) * (2 * slides.axes)
    runs = _runs(first.pads, averages.kernel)
    pool: dict[str, AttributeValue] = {
        "kernel_shape": first.kernel,
        "strides": first.strides,
        "pads": first.pads if runs else zero,
        "count_include_pad": 1,
    }
    if set(first.dilations) != {1}:
        pool["dilations"] = first.dilations
    changed: dict[str, AttributeValue] = {"strides": averages.strides, "pads": zero}
    if site.is_global:  # the pool has made the taps' positions, and nothing between them
        changed["dilations"] = changed["strides"] = (1,) * slides.axes
    kept = {k: v for k, v in site.conv.attributes.items() if k != "auto_pad"}
    pads = () if runs else first.pads
    return Form("the average comes first", pool, {**kept, **changed}, pads=pads)


def _swapped(slides: Window, averages: Window) -> Window | None:
    """Average with stride 1, then convolve with the pool's stride."""
    ones = (1,) * slides.axes
    return Window(averages.kernel, ones, ones, slides.pads) if slides.strides == ones else None


def _global(
    site: PooledConv, slides: Window, averages: Window, sizes: tuple[int, ...] | None
) -> Window | None:
    """Average what each tap sees over the whole map, then convolve once."""
    strided = set(slides.strides) != {1}
    if sizes is None or (strided and site.opset < _DILATED_POOLS):
        return None
    # Positions past the last window would make more averages than there are taps.
    rows = zip(sizes, slides.padding, slides.span, slides.strides, strict=True)
    spare = [(n + p - k) % s for n, p, k, s in rows]
    ends = [end - rest for end, rest in zip(slides.pads[slides.axes :], spare, strict=True)]
    pads = (*slides.pads[: slides.axes], *ends)
    return (
        Window(averages.kernel, slides.dilations, slides.strides, pads) if min(pads) >= 0 else None
    )


def _runs(pads: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether onnxruntime takes a pool with this padding."""
    return all(pad < taps for pad, taps in zip(pads, (*kernel, *kernel), strict=True))


def _composed(site: PooledConv, slides: Window, averages: Window, weight: np.ndarray) -> Form:
    """Convolve with the average of the shifted kernels."""
    rows = zip(slides.span, averages.kernel, slides.strides, strict=True)
    size = [span + (taps - 1) * stride for span, taps, stride in rows]
    kernel = np.zeros((*weight.shape[:2], *size))
    for shift in product(*(range(taps) for taps in averages.kernel)):
        places = [slice(None)] * 2
        for offset, stride, span, dilation in zip(
            shift, slides.strides, slides.span, slides.dilations, strict=True
        ):
            places.append(slice(offset * stride, offset * stride + span, dilation))
        kernel[tuple(places)] += weight
    kernel /= prod(averages.kernel)
    strides = tuple(s * t for s, t in zip(slides.strides, averages.strides, strict=True))
    kept = {k: v for k, v in site.conv.attributes.items() if k not in {"auto_pad", "dilations"}}
    changed = {"kernel_shape": tuple(size), "strides": strides, "pads": slides.pads}
    return Form("one convolution with the averaged kernel", None, {**kept, **changed}, kernel)


def work(site: PooledConv, form: Form | None, facts: Facts) -> float:
    """Return what a form costs in multiply-accumulates; None is the pair as it stands."""
    x, y = facts.concrete(site.conv.inputs[0]), facts.concrete(site.pool.outputs[0])
    middle, w = facts.concrete(site.conv.outputs[0]), facts.concrete(site.conv.inputs[1])
    if x is None or y is None or middle is None or w is None:
        return 0.0
    places = 1 if site.is_global else prod(y[2:])
    if site.averages is not None:
        places = prod(site.averages.outputs(middle[2:]))
    averaged = middle[2:] if site.averages is None else site.averages.kernel
    if site.slides is None and not site.is_global:
        averaged = tuple(site.pool.attributes["kernel_shape"].as_ints())
    taps = prod(averaged) * _MACS_PER_TAP
    if form is None:
        return prod(middle) * prod(w[1:]) + taps * places * middle[0] * middle[1]
    kernel = w if form.kernel is None else form.kernel.shape
    total = places * middle[0] * middle[1] * prod(kernel[1:])
    if form.pool is None:
        return total
    made, copied = places, 0
    if site.slides is not None and site.averages is not None:
        padded = [n + p for n, p in zip(x[2:], site.slides.padding, strict=True)]
        rows = zip(padded, site.averages.kernel, strict=True)
        made = prod(w[2:]) if site.is_global else prod(n - k + 1 for n, k in rows)
        copied = prod(padded) * _MACS_PER_TAP if form.pads else 0
    return total + (taps * made + copied) * x[0] * x[1]


def written(site: PooledConv, form: Form) -> list[NewNode]:
    """Describe the nodes of a form; the last makes the average."""
    name = site.pool.outputs[0].name or "pooled"
    source, weight, *bias = site.conv.inputs
    nodes: list[NewNode] = []
    read: ir.Value | Fresh | None = source
    if form.pads:
        read = Fresh(f"{name}_padded")
        half = len(form.pads) // 2
        around = np.array([0, 0, *form.pads[:half], 0, 0, *form.pads[half:]], np.int64)
        nodes.append(NewNode("Pad", (source, Fresh(f"{name}_pads", ir.tensor(around))), (read,)))
    if form.pool is not None:
        averaged = Fresh(f"{name}_averaged")
        op_type = "AveragePool" if form.pool else "GlobalAveragePool"
        nodes.append(NewNode(op_type, (read,), (averaged,), form.pool))
        read = averaged
    kernel: ir.Value | Fresh | None = weight
    if form.kernel is not None and site.weight is not None and weight is not None:
        stored = form.kernel.astype(site.weight.numpy().dtype)
        kernel = Fresh(f"{weight.name}_averaged", ir.tensor(stored))
    last = site.pool.op_type == "ReduceMean" and integer(site.pool, "keepdims", 1) == 0
    made = Fresh(f"{name}_convolved" if last else name)
    nodes.append(NewNode("Conv", (read, kernel, *bias), (made,), form.conv))
    if last:  # of one position per channel; it drops the axes
        axes = site.pool.inputs[1:]
        nodes.append(NewNode("ReduceMean", (made, *axes), (Fresh(name),), site.pool.attributes))
    return nodes
