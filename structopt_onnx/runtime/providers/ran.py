"""What comes back from a provider, whatever it was reached by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.runtime.providers.placement import Placement


@dataclass(frozen=True)
class Ran:
    """A model was run on a provider.

    Attributes
    ----------
    placement
        Where its nodes were.
    outputs
        Arrays by output, per feed; empty where something else has checked them (`checked`).
    engine
        What ran it, with its version.
    simulated
        Whether the device was a simulated one.
    checked
        Whether the outputs were compared where they came into being.
    times_ms
        Milliseconds per run where the runner itself has measured them.
    graph_ops
        Operators of the graph that the provider made for its device.
    context_bytes
        Size of the compiled graph that an app can ship.
    """

    placement: Placement
    outputs: Sequence[Mapping[str, Any]]
    engine: str
    simulated: bool = False
    checked: bool = False
    times_ms: Sequence[float] = field(default_factory=tuple)
    graph_ops: int | None = None
    context_bytes: int | None = None
