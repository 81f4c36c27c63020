"""What may be said of a model on a provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["executed", "partial", "simulated", "predicted", "unavailable"]


class Unavailable(Exception):  # noqa: N818 - a state, not a mistake
    """A provider can't run a model here; `str(error)` is the reason, on one line."""


@dataclass(frozen=True)
class Status:
    """How much is known to be true of a model on a provider.

    Attributes
    ----------
    kind
        ``executed``: all nodes ran on it, with the right values. ``partial``: some did, the CPU
        did the rest. ``simulated``: as `executed` or `partial`, in a simulator of the device.
        ``predicted``: nothing ran, its lists of operators were asked. ``unavailable``: nothing
        is known.
    nodes, of
        Nodes on the provider, and all nodes; None where nothing is known.
    reason
        Why it is unavailable.
    """

    kind: Kind
    nodes: int | None = None
    of: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    @property
    def text(self) -> str:
        """The kind with what qualifies it."""
        if self.kind == "partial":
            return f"partial ({self.nodes} of {self.of} nodes)"
        return f"unavailable ({self.reason})" if self.kind == "unavailable" else self.kind

    @property
    def ran(self) -> bool:
        """Whether the model was run, on a device or a simulator."""
        return self.kind in {"executed", "partial", "simulated"}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "text": self.text, "ran": self.ran}
