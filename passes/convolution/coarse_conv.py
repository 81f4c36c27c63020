"""What makes one value per block in a convolution's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Fresh, NewNode
from structopt_onnx.passes.convolution.geometry import window
from structopt_onnx.passes.convolution.kernel_parts import label, part_of
from structopt_onnx.passes.convolution.taps import sliced
from structopt_onnx.passes.convolution.thinning import windowed

if TYPE_CHECKING:
    import numpy.typing as npt

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.convolution.coarse_site import CoarseSite
    from structopt_onnx.passes.convolution.geometry import Window
    from structopt_onnx.passes.convolution.kernel_parts import Taps

    FloatArray = npt.NDArray[np.float64]

MEAN_FIRST = "mean first"


@dataclass(frozen=True, eq=False)
class CoarseConv:
    """A convolution with a stride, or the same one behind an average.

    Parameters
    ----------
    data
        Name of what it reads. Once that is at a lower resolution itself, nothing here holds.
    slides
        The window that blocks see.
    fit
        Taps of that window with weight and bias in float64; None for the average.
    """

    data: str
    slides: Window
    fit: tuple[Taps, FloatArray, FloatArray] | None

    @property
    def label(self) -> str:
        """Name of the option."""
        return MEAN_FIRST if self.fit is None else label(self.fit[0])

    def nodes(self, match: CoarseSite, facts: Facts) -> tuple[list[NewNode], Fresh] | None:
        """Describe the nodes and what they make; None where the site is no longer the same."""
        use, name = match.site.uses[0], match.site.weight.name or ""
        if use.data.name != self.data or match.slides != self.slides:
            return None
        made = Fresh(f"{use.made.name}_low")
        if self.fit is None:
            return self._averaged(match, made, facts)
        taps, *constants = self.fit
        part = part_of(self.slides, taps, facts.dims(use.data))
        if part is None:
            return None
        attributes, pads = part
        nodes: list[NewNode] = []
        read: ir.Value | Fresh = use.data
        if min(pads) < 0:
            read = Fresh(f"{use.made.name}_sliced")
            nodes.append(sliced(use.data, read, pads))
        dtype = match.site.tensor.dtype.numpy()
        stored = [
            Fresh(f"{name}_{what}", ir.tensor(np.ascontiguousarray(array, dtype)))
            for what, array in zip(("low", "bias"), constants, strict=True)
        ]
        given = {"group": match.site.groups, **attributes}
        nodes.append(NewNode("Conv", (read, *stored), (made,), given))
        return nodes, made

    def _averaged(
        self, match: CoarseSite, made: Fresh, facts: Facts
    ) -> tuple[list[NewNode], Fresh] | None:
        use = match.site.uses[0]
        first = window(use.node, facts)
        if first is None or not match.averages:
            return None
        mean = Fresh(f"{use.made.name}_mean")
        blocks = {"kernel_shape": match.steps, "strides": match.steps}
        inputs = (mean, *use.node.inputs[1:])
        return [
            NewNode("AveragePool", (use.data,), (mean,), blocks),
            NewNode("Conv", inputs, (made,), windowed(use.node, first)),
        ], made
