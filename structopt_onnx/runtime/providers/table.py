"""The record of models on providers: everything a report needs, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.runtime.comparison import Comparison
    from structopt_onnx.runtime.machine import Machine
    from structopt_onnx.runtime.providers.status import Status


@dataclass(frozen=True)
class ProviderRow:
    """What is known of one model on one provider; None and empty where nothing is.

    Attributes
    ----------
    provider
        The user's name of it.
    model
        Display name of the model.
    status
        How much is known to be true.
    engine
        What ran it, with its version.
    nodes, taken
        Nodes of the graph that the engine made of the model, and those that the provider has; of
        a prediction, nodes of the model.
    partitions
        Pieces that it compiles, between which the CPU takes over.
    left
        Nodes left on the CPU, by operator; of a prediction, operators that are not listed, with
        None.
    graph_ops
        Operators of the graph that the provider made for its device (QNN).
    context_bytes
        Size of the compiled graph that an app can ship (QNN).
    max_abs, relative_error
        Of the outputs from the CPU's in float32 without graph optimizations: the largest
        difference, and the relative L2 error of the worst output.
    p50_ms, p90_ms, minimum_ms, runs
        Milliseconds per run, where a time means something, and the samples they come from.
    peak_rss_bytes, device_bytes
        Memory of a fresh process that loads the model and runs it once, on the host and on the
        device.
    not_timed
        Why there are no times, where there should be some.
    """

    provider: str
    model: str
    status: Status
    engine: str = ""
    nodes: int | None = None
    taken: int | None = None
    partitions: int | None = None
    left: Mapping[str, int | None] = field(default_factory=dict)
    graph_ops: int | None = None
    context_bytes: int | None = None
    max_abs: float | None = None
    relative_error: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    minimum_ms: float | None = None
    runs: int = 0
    peak_rss_bytes: int | None = None
    device_bytes: int | None = None
    not_timed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "status": self.status.to_json()}


@dataclass(frozen=True)
class ProviderTable:
    """One or two models over several providers.

    Attributes
    ----------
    a, b
        Display names of the models; `b` is None with one model.
    rows
        By provider in the order asked for, `a` before `b`.
    shapes
        Inputs that the models were fixed to, such as ``x float32[1,3,32,32]``.
    synthetic
        Whether the inputs were made up.
    comparisons
        The paired benchmark by provider, where both models were timed on it.
    machine
        Where all of it was done.
    """

    a: str
    b: str | None
    rows: tuple[ProviderRow, ...]
    shapes: tuple[str, ...]
    synthetic: bool
    comparisons: Mapping[str, Comparison]
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "rows": [row.to_json() for row in self.rows]}


@dataclass(frozen=True)
class ProbedProvider:
    """What this machine can do with a provider, tried on a tiny model.

    Attributes
    ----------
    name, key
        The user's and onnxruntime's name of it.
    status
        Of the tiny model.
    engine
        What ran it, with its version.
    package, takes
        What to install for it, and what it computes with.
    variable
        The environment's variable with the folder of what it needs.
    """

    name: str
    key: str
    status: Status
    engine: str
    package: str
    takes: str
    variable: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "status": self.status.to_json()}


@dataclass(frozen=True)
class ProviderList:
    """The providers of a machine.

    Attributes
    ----------
    providers
        Those asked for, or all that are known.
    machine
        The machine.
    """

    providers: tuple[ProbedProvider, ...]
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "providers": [found.to_json() for found in self.providers]}
