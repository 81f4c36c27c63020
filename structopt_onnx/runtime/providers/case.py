"""What every provider is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.runtime.session import Feeds


@dataclass(frozen=True)
class Case:
    """A model that is to be run on several providers, and what the CPU makes of it.

    Attributes
    ----------
    model
        In memory.
    path
        Its file with fixed shapes, as every provider gets it; weights are beside it where one
        file can't hold them.
    feeds
        Inputs of those shapes.
    expected
        The CPU's outputs without graph optimizations, per feed.
    libraries
        Shared libraries with custom operators.
    """

    model: ir.Model
    path: Path
    feeds: Sequence[Feeds]
    expected: Sequence[Mapping[str, Any]]
    libraries: Sequence[Path] = ()
