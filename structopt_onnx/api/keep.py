"""A budget of cost: the share of the original's that may be left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

from structopt_onnx.errors import UsageError
from structopt_onnx.rewriting.cost import Objective


@dataclass(frozen=True)
class Keep:
    """What a model may still cost.

    Parameters
    ----------
    objective
        The cost it is about: parameters, macs, bytes (of weights) or time (predicted).
    share
        Of the whole original model's, over 0 and at most 1.
    """

    objective: Objective
    share: float

    @classmethod
    def of(cls, given: str | Mapping[str, float]) -> Keep:
        """Read ``parameters=0.5`` or ``{"parameters": 0.5}``.

        Raises
        ------
        UsageError
            When it is not one cost and one share.
        """
        name, share = _one(given)
        known = get_args(Objective)
        if name not in known:
            raise UsageError(f"keep names one of {', '.join(known)}, not '{name}'")
        if not 0 < share <= 1:
            raise UsageError(
                f"keep is a share over 0 and at most 1, such as {name}=0.5, not {share:g}"
            )
        return cls(cast("Objective", name), share)

    def __str__(self) -> str:
        """Write it as it is given on the command line."""
        return f"{self.objective}={self.share:g}"


def _one(given: str | Mapping[str, float]) -> tuple[str, float]:
    try:
        pairs = given.items() if isinstance(given, Mapping) else [str(given).split("=")]
        ((name, share),) = pairs
        return str(name).strip(), float(share)
    except (TypeError, ValueError):
        raise UsageError(f"keep is one cost and its share, such as macs=0.5, not {given}") from None
