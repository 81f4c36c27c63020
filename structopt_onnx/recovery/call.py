"""A node as the differentiable operators see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Inputs: TypeAlias = "Sequence[torch.Tensor | None]"


class NotDifferentiableError(Exception):
    """A node that can't be run under autograd, and why."""


@dataclass(frozen=True)
class Call:
    """What an operator is told beside its inputs.

    Parameters
    ----------
    op_type
        Of the ONNX domain.
    attributes
        Values by name: numbers, strings, lists of them.
    opset
        Version of the ONNX domain.
    outputs
        Number of outputs, from the first to the last one that is read.
    """

    op_type: str
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as attributes are
        """Return an attribute."""
        return self.attributes.get(name, default)

    def refuse(self, why: str) -> NotDifferentiableError:
        """Return the error that says why it can't be run."""
        return NotDifferentiableError(f"{self.op_type}: {why}")


Operator: TypeAlias = Callable[[Call, Inputs], "torch.Tensor | Sequence[torch.Tensor]"]


def given(inputs: Inputs, position: int) -> torch.Tensor | None:
    """Return an input, None where it is left out."""
    return inputs[position] if position < len(inputs) else None


def needed(inputs: Inputs, position: int = 0) -> torch.Tensor:
    """Return an input that an operator always has."""
    found = inputs[position]
    assert found is not None, "the model was checked"  # noqa: S101
    return found


def numbers(call: Call, inputs: Inputs, name: str, position: int) -> list[int] | None:
    """Return integers given by an attribute or, in later opsets, by an input; None without both."""
    found = given(inputs, position)
    if found is not None:
        return [int(k) for k in found.reshape(-1).tolist()]
    held = call.get(name)
    return None if held is None else [int(k) for k in held]
