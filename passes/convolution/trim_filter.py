"""trim-filter: taps of a convolution that are zero, or see padding alone, are not convolved.

What it does
    Crops lines of zeros at a kernel's border and takes them off the padding; where there is less
    padding than that, the input is sliced instead. A kernel that is zero but at every so many taps
    becomes a smaller one with dilations. Taps that no window lays over the input count as zeros,
    where its size is fixed.

Why
    Kernels are cropped and dilated by pruning, by centring an even filter in an odd one, and by
    exporters that write dilations out. A 3x3 kernel that is zero around its centre costs nine
    times what it needs. Behind a few pools, activations are shorter than the kernels that read
    them: 64 taps over 8 positions, padded to keep their number, never use more than 15.

Leaves alone
    Zeros of single channels and isolated ones, weights that are not stored, padding that depends
    on a size that may change. At least one tap stays.

Exactness
    ROUNDING: products with zero are left out of the sum; what they would make of infinities, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import Window, window
from structopt_onnx.passes.convolution.taps import (
    SLICES_BY_INPUT,
    leaves_input,
    meets_input,
    padding_left,
    sliced,
)
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True, eq=False)
class Trim:
    """A convolution whose kernel is smaller than it is written.

    Parameters
    ----------
    conv, slides
        The convolution and its window.
    taps
        Which taps are kept, one slice per axis.
    pads
        Padding that remains; below 0 for positions that must be sliced off.
    """

    conv: ir.Node
    slides: Window
    taps: tuple[slice, ...]
    pads: tuple[int, ...]


@dataclass(frozen=True)
class TrimFilter(NodePass[Trim]):
    """Has no options."""

    name: ClassVar[str] = "trim-filter"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Conv"})
    refusals: ClassVar[dict[str, str]] = {
        "kernel-in-padding": "what remains of the kernel may lie in the padding alone",
        "needs-slice": "there is less padding than zeros, and the opset has no Slice by inputs",
        "pads-depend-on-size": "auto_pad depends on a size that may change, or is not known",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Trim | Refusal | None:
        """Look for zeros that a smaller kernel leaves out."""
        weight = node.inputs[1]
        if weight is None or not weight.is_initializer() or weight.is_graph_input():
            return None
        array = facts.array(weight)
        if array is None or array.size == 0 or max(array.shape[2:], default=1) == 1:
            return None
        slides = window(node, facts)
        useful = (array != 0).any(axis=(0, 1))
        if slides is not None:
            for axis, met in enumerate(meets_input(slides, facts.dims(node.inputs[0]))):
                useful &= np.moveaxis(met.reshape(-1, *(1,) * (useful.ndim - 1)), 0, axis)
        used = np.argwhere(useful)
        if len(used) == 0:
            used = np.array([[(taps - 1) // 2 for taps in array.shape[2:]]])
        taps = tuple(_kept(np.unique(used[:, axis])) for axis in range(array.ndim - 2))
        rows = zip(taps, array.shape[2:], strict=True)
        if all(t == slice(0, size, 1) for t, size in rows):
            return None
        if slides is None:
            return Refusal("pads-depend-on-size", f"of '{node.name}'", node.name or "")
        pads = padding_left(slides, taps, facts.dims(node.inputs[0]))
        if min(pads) < 0 and (facts.opset(scope) or 0) < SLICES_BY_INPUT:
            return Refusal("needs-slice", f"{pads}", node.name or "")
        if not leaves_input(pads, facts.dims(node.inputs[0])):
            return Refusal("kernel-in-padding", f"{pads}", node.name or "")
        return Trim(node, slides, taps, pads)

    def rewrite(self, scope: Scope, facts: Facts, match: Trim) -> Patch:
        """Describe the smaller convolution."""
        source, weight, *bias = match.conv.inputs
        array = np.asarray(facts.array(weight))
        kernel = np.ascontiguousarray(array[(slice(None), slice(None), *match.taps)])
        name = match.conv.outputs[0].name or "trimmed"
        nodes: list[NewNode] = []
        read: ir.Value | Fresh | None = source
        if min(match.pads) < 0:
            read = Fresh(f"{name}_sliced")
            nodes.append(sliced(source, read, match.pads))
        steps = tuple(t.step for t in match.taps)
        attributes: dict[str, AttributeValue] = {
            **match.conv.attributes,
            "kernel_shape": kernel.shape[2:],
            "dilations": tuple(d * s for d, s in zip(match.slides.dilations, steps, strict=True)),
            "pads": tuple(max(pad, 0) for pad in match.pads),
        }
        attributes.pop("auto_pad", None)
        trimmed = Fresh(f"{weight.name if weight is not None else name}_trimmed", ir.tensor(kernel))
        made = Fresh(name)
        nodes.append(NewNode("Conv", (read, trimmed, *bias), (made,), attributes))
        was, now = ("x".join(str(k) for k in a.shape[2:]) for a in (array, kernel))
        title = f"kernel of '{match.conv.name or name}': {was} -> {now}"
        rewire = {match.conv.outputs[0]: made}
        return Patch(title, match.conv, {scope: Edit((match.conv,), tuple(nodes), (), rewire)})


def _kept(places: np.ndarray) -> slice:
    """Return the sparsest regular taps that hold all places where there is something."""
    first, last = int(places[0]), int(places[-1])
    step = int(np.gcd.reduce(places - first)) or 1
    return slice(first, last + 1, step)
