"""Which moments of activations a convolution is fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.statistic import PatchStatistic, Statistic

if TYPE_CHECKING:
    from structopt_onnx.passes.low_rank.conv_site import ConvSite

# A covariance of this dimension takes 128 MiB and its eigenvectors half a minute.
LARGEST_DIMENSION = 4096
# Patches are gathered position by position; beyond this their covariance costs more than a run.
LARGEST_PATCH = 2048


def statistic_of(site: ConvSite) -> Statistic | None:
    """Return the moments that tell most about a weight, or None when all are too large.

    Moments of the patches serve every scheme; where they are too large or would only serve to
    thin out the outputs, moments of the output do.
    """
    plain = not site.transposed and site.groups == 1
    features = site.inputs * site.taps
    patches = plain and site.pads is not None and features <= LARGEST_PATCH
    # Moments of outputs that were moved by different biases can't be pooled.
    biases = {None if use.bias is None else use.bias.tobytes() for use in site.uses}
    output = site.outputs <= LARGEST_DIMENSION and len(biases) == 1
    if patches and (site.taps > 1 or not output or features < site.outputs):
        names = tuple(dict.fromkeys(use.data.name or "" for use in site.uses))
        pads = site.pads or ()
        return PatchStatistic(names, 1, site.kernel, site.strides, site.dilations, pads)
    names = tuple(dict.fromkeys(use.made.name or "" for use in site.uses))
    return Statistic(names, 1) if output else None
