"""Weights that a single product reads, whose numbers can change while the graph stays."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.convolution import conv_site
from structopt_onnx.passes.low_rank import matmul_site
from structopt_onnx.passes.low_rank.last_factor import last_factor
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.low_rank.last_factor import LastFactor

REFUSALS = {
    **matmul_site.REFUSALS,
    **conv_site.REFUSALS,
    **conv_site.THIN,
    "weight-dtype": "the weight is not float16, float32 or, in a matrix product, float64",
    "several-uses": "more than one product reads the weight",
    "not-plain": "a transposed or grouped convolution, one whose padding depends on a size, or a "
    "Gemm with a C that changes or with factors of zero",
}


def lone_weights(scope: Scope, facts: Facts) -> Iterator[LastFactor | Refusal]:
    """Yield each weight of Gemm, MatMul and Conv nodes once, or why it must stay."""
    sites = chain(matmul_site.find_sites(scope, facts), conv_site.find_sites(scope, facts))
    for site in sites:
        if isinstance(site, Refusal):
            yield site
            continue
        name, (first, *others) = site.weight.name or "", site.uses
        if others:
            yield Refusal("several-uses", f"{len(site.uses)} products", name)
            continue
        found = last_factor(name, scope, facts)
        if isinstance(found, Refusal):
            yield Refusal("not-plain", f"{first.node.op_type} '{first.node.name}'", name)
        elif not np.isfinite(found.factor()).all():
            yield Refusal("weight-not-finite", "it holds infinity or NaN", name)
        else:
            yield found
