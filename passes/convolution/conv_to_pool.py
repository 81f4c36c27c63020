"""A convolution, pointwise operators behind it, and the pool that reads them alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.model.statistic import PatchTargetStatistic
from structopt_onnx.passes.convolution.composition import composed_window
from structopt_onnx.passes.convolution.conv_site import ConvSite, site_of
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_PATCH
from structopt_onnx.passes.convolution.geometry import Window, is_open, window
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_POOLS = {"MaxPool", "AveragePool"}
POINTWISE = frozenset(
    {"BatchNormalization", "Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu"}
    | {"Selu", "Sigmoid", "Softplus", "Tanh"}
)


@dataclass(frozen=True, eq=False)
class PooledSite:
    """A convolution whose outputs only a pool reads.

    Parameters
    ----------
    site
        The convolution's weight, used once.
    between
        Pointwise operators, in order.
    pool
        MaxPool or AveragePool.
    slides
        The window of both, seen from the convolution's input.
    """

    site: ConvSite
    between: tuple[ir.Node, ...]
    pool: ir.Node
    slides: Window

    @property
    def made(self) -> ir.Value:
        """What the pool makes."""
        return self.pool.outputs[0]

    @property
    def statistic(self) -> PatchTargetStatistic:
        """Moments of the patches below the pool with what it makes of them."""
        window = self.slides
        return PatchTargetStatistic(
            (self.site.uses[0].data.name or "",),
            1,
            window.kernel,
            window.strides,
            window.dilations,
            window.pads,
            self.made.name or "",
        )


def pooled_site(weight: ir.Value, scope: Scope, facts: Facts) -> PooledSite | Refusal | None:
    """Look for a pool behind the convolution of a weight.

    Windows of the pool, moved by the convolution's stride and widened by its kernel, are windows
    of the input: one strided convolution makes as many outputs at every size.
    """
    name = weight.name or ""
    nodes = [use.node for use in weight.uses() if use.idx == 1 and use.node.op_type == "Conv"]
    found = [path for node in nodes if (path := _path(node)) is not None]
    if not found:
        return None
    site = site_of(name, scope, facts, thin=True)
    if isinstance(site, Refusal):
        return site
    *between, pool = found[0]
    read = _read_elsewhere(site, between, pool)
    slides = read or _slides(site, pool, facts)
    if slides is None:
        return None
    if not isinstance(slides, Window):
        return Refusal(*slides, name)
    features = site.inputs * math.prod(slides.kernel)
    if features + site.outputs > LARGEST_PATCH:
        return Refusal("statistics-too-large", f"{features} inputs per output", name)
    return PooledSite(site, tuple(between), pool, slides)


def _read_elsewhere(
    site: ConvSite, between: list[ir.Node], pool: ir.Node
) -> tuple[str, str] | None:
    if len(site.uses) > 1:
        return "weight-shared", f"{len(site.uses)} convolutions"
    values = [site.uses[0].made, *(node.outputs[0] for node in between)]
    if any(len(value.uses()) > 1 or value.is_graph_output() for value in values):
        return "read-elsewhere", f"what '{pool.name}' pools"
    if any(output.uses() or output.is_graph_output() for output in pool.outputs[1:]):
        return "indices-read", f"of '{pool.name}'"
    return None


def _slides(site: ConvSite, pool: ir.Node, facts: Facts) -> Window | tuple[str, str] | None:
    first, second = window(site.uses[0].node, facts), window(pool, facts)
    if first is None or second is None:
        return "pads-depend-on-size", f"of it or '{pool.name}'"
    if set(second.strides) == {1}:
        return None
    if set(second.dilations) != {1}:
        return "pool-dilations", f"{second.dilations}"
    if second.has_partial(facts.dims(pool.inputs[0])):
        return "ceil-mode", f"of '{pool.name}'"
    kernel, dilations = composed_window(first, second)
    steps = first.strides * 2
    pads = tuple(p + q * s for p, q, s in zip(first.pads, second.pads, steps, strict=True))
    strides = tuple(s * t for s, t in zip(first.strides, second.strides, strict=True))
    return Window(kernel, strides, dilations, pads)


def _path(conv: ir.Node) -> list[ir.Node] | None:
    """Return the pointwise operators behind a convolution and the pool that ends them."""
    path: list[ir.Node] = []
    value = conv.outputs[0]
    while True:
        readers = [use.node for use in value.uses() if use.idx == 0 and use.node.domain == ""]
        readers = [node for node in readers if node.graph is conv.graph and not is_open(node)]
        pools = [node for node in readers if node.op_type in _POOLS]
        if pools:
            return [*path, pools[0]]
        plain = [n for n in readers if n.op_type in POINTWISE and len(n.outputs) == 1]
        if len(plain) != 1:
            return None
        path.append(plain[0])
        value = plain[0].outputs[0]
