"""pool-before-conv: what is averaged anyway is averaged before it is convolved.

What it does
    A convolution read by an AveragePool becomes an average with stride 1 and a convolution with
    the pool's stride, or one convolution with the averaged kernel, whichever takes less work;
    padding beyond what runtimes let a pool pad goes into a Pad. A 1x1 convolution changes places
    with the pool. A convolution read by a GlobalAveragePool, or a ReduceMean over space, becomes
    one small convolution of the map's averages at each tap.

Why
    Convolution and average are linear: three quarters of the products go where the pool halves
    both sizes (the transitions of a DenseNet), nearly all before a global average. No runtime
    does it by itself.

Leaves alone
    Convolutions that somebody else reads; pools whose padding or partial windows would see what
    a convolution makes of padding; a bias under padding that counts; sizes that must be known and
    are not. Activations and normalizations between the two are no structure for this pass.

Exactness
    ROUNDING: the same function, summed in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.edit import Edit
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import (
    Window,
    counts_padding,
    integers,
    is_open,
    window,
)
from structopt_onnx.passes.convolution.pooled_conv import PooledConv, forms, work, written
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_AXES_BY_INPUT = 18  # opset in which ReduceMean takes its axes as an input
_MOST_POOLED_AXES = 3  # in onnxruntime
_BIASED = 3  # inputs of a convolution with a bias


@dataclass(frozen=True)
class PoolBeforeConv(NodePass[PooledConv]):
    """Has no options."""

    name: ClassVar[str] = "pool-before-conv"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
    refusals: ClassVar[dict[str, str]] = {
        "axes-not-spatial": "the mean is over other axes than all spatial ones",
        "bias-under-padding": "the pool's padding counts, and holds no bias",
        "ceil-mode": "the pool's last window may be partial",
        "padded-pool": "the pool averages padding, not what a convolution makes of it",
        "pads-depend-on-size": "auto_pad depends on a size that may change, or is not known",
        "pool-dilations": "the pool is dilated",
        "read-elsewhere": "the convolution's result is read elsewhere, or a graph output",
        "size-unknown": "a global average needs the map's size",
        "no-form": "strides, padding or an unstored weight leave no form that runtimes take",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> PooledConv | Refusal | None:
        """Look for a convolution whose only reader is this average."""
        value = node.inputs[0]
        conv = None if value is None else value.producer()
        if value is None or conv is None or conv.domain != "" or conv.op_type != "Conv":
            return None
        name = node.name or ""
        if is_open(node):
            return None
        rank, opset = facts.rank(value), facts.opset(scope) or 0
        if rank is None or rank - 2 > _MOST_POOLED_AXES or conv.graph is not node.graph:
            return None
        if set((facts.dims(value) or ())[2:]) == {1}:
            return None  # one position; its average is itself
        is_global = node.op_type != "AveragePool"
        if node.op_type == "ReduceMean" and (axes := _axes(node, facts, rank, opset)) != set(
            range(2, rank)
        ):
            spatial = any(axis > 1 for axis in axes)
            return Refusal("axes-not-spatial", f"{sorted(axes)}", name) if spatial else None
        if value.is_graph_output() or len(value.uses()) > 1:
            return Refusal("read-elsewhere", f"'{value.name}' is", name)
        slides = window(conv, facts)
        if slides is None:
            return Refusal("pads-depend-on-size", f"of '{conv.name}'", name)
        weight = conv.inputs[1]
        stored = weight is not None and weight.is_initializer()
        tensor = facts.tensor(weight) if stored else None
        found = PooledConv(conv, node, slides, None, is_global, tensor, opset)
        if slides.is_point and set(slides.strides) == {1}:
            return _moved(found) if is_global else _past_one_tap(found)
        averages = _over_the_map(value, facts) if is_global else _averages(node, facts)
        return (
            Refusal(*averages, name)
            if isinstance(averages, tuple)
            else replace(found, averages=averages)
        )

    def rewrite(self, scope: Scope, facts: Facts, match: PooledConv) -> Patch | Refusal | None:
        """Describe the cheapest form; None where the pair as it stands is the cheapest."""
        dims = facts.dims(match.conv.inputs[0]) or ()
        sizes = tuple(d for d in dims[2:] if d is not None)
        found = list(forms(match, sizes if len(sizes) == len(dims[2:]) and sizes else None))
        name = match.pool.name or ""
        if not found:
            return Refusal("no-form", f"of '{match.conv.name}' and this", name)
        form = min(found, key=lambda f: work(match, f, facts))
        if work(match, form, facts) >= work(match, None, facts) > 0:
            return None
        nodes = written(match, form)
        edit = Edit(
            (match.conv, match.pool),
            tuple(nodes),
            (),
            {match.pool.outputs[0]: nodes[-1].outputs[0]},
        )
        where = match.conv.name or match.conv.outputs[0].name
        return Patch(f"'{where}' and its pool: {form.label}", match.pool, {scope: edit})


def _axes(node: ir.Node, facts: Facts, rank: int, opset: int) -> set[int]:
    if opset < _AXES_BY_INPUT:
        listed = integers(node, "axes", ())
    else:
        array = facts.array(node.inputs[1]) if len(node.inputs) > 1 else None
        listed = () if array is None else tuple(int(a) for a in array.reshape(-1))
    return {axis % rank for axis in listed}


def _moved(found: PooledConv) -> PooledConv:
    """Return a site whose convolution looks at one position: the pool can go first as it is."""
    return replace(found, slides=None)


def _past_one_tap(found: PooledConv) -> PooledConv | Refusal:
    pool = found.pool
    biased = len(found.conv.inputs) == _BIASED and found.conv.inputs[2] is not None
    if biased and counts_padding(pool):
        return Refusal("bias-under-padding", f"of '{found.conv.name}'", pool.name or "")
    return _moved(found)


def _over_the_map(value: ir.Value, facts: Facts) -> Window | tuple[str, str]:
    sizes = (facts.dims(value) or ())[2:]
    known = tuple(size for size in sizes if size is not None)
    if not known or len(known) < len(sizes):
        return "size-unknown", f"of '{value.name}'"
    ones = (1,) * len(known)
    return Window(known, ones, ones, (0,) * (2 * len(known)))


def _averages(pool: ir.Node, facts: Facts) -> Window | tuple[str, str]:
    found = window(pool, facts)
    if found is None:
        return "pads-depend-on-size", "of the pool"
    if set(found.dilations) != {1}:
        return "pool-dilations", str(found.dilations)
    if any(found.pads):
        return "padded-pool", str(found.pads)
    if found.has_partial(facts.dims(pool.inputs[0])):
        return "ceil-mode", "of the pool"
    return found
