"""Which moments of activations a convolution is fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.statistic import PatchStatistic, Statistic

if TYPE_CHECKING:
    from structopt_onnx.passes.convolution.conv_site import ConvSite

# A covariance of this dimension takes 128 MiB and its eigenvectors half a minute.
LARGEST_DIMENSION = 4096
# Patches are gathered position by position; beyond this their covariance costs more than a run.
LARGEST_PATCH = 2048


def patches_of(site: ConvSite) -> PatchStatistic | None:
    """Return the moments of the patches that filters see; None when too large or of no fixed grid.

    All groups' patches are taken together, though only moments within groups are of use.
    """
    if site.transposed or site.pads is None or site.inputs * site.taps > LARGEST_PATCH:
        return None
    names = tuple(dict.fromkeys(use.data.name or "" for use in site.uses))
    return PatchStatistic(names, 1, site.kernel, site.strides, site.dilations, site.pads)


def statistic_of(site: ConvSite) -> Statistic | None:
    """Return the moments that tell most about a weight, or None when all are too large.

    Moments of the patches serve every scheme; where they are too large or would only serve to
    thin out the outputs, moments of the output do.
    """
    features = site.inputs * site.taps
    patches = patches_of(site) if site.groups == 1 else None
    # Moments of outputs that were moved by different biases can't be pooled.
    biases = {None if use.bias is None else use.bias.tobytes() for use in site.uses}
    output = site.outputs <= LARGEST_DIMENSION and len(biases) == 1
    if patches is not None and (site.taps > 1 or not output or features < site.outputs):
        return patches
    names = tuple(dict.fromkeys(use.made.name or "" for use in site.uses))
    return Statistic(names, 1) if output else None
