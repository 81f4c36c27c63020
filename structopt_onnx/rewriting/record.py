"""What a run of the manager did: derived from applied patches, never reported by a pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.model.scope import scopes

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.rewriting.cost import Cost
    from structopt_onnx.rewriting.passes import Refusal


@dataclass(frozen=True)
class Applied:
    """One patch, or one library step, that was carried out.

    Parameters
    ----------
    number
        Position among everything applied to this model, from 1.
    step
        Name of the pass or library step.
    title
        What was done.
    node
        The anchor node, empty for a library step.
    before, after
        Cost of the region.
    replaced
        Names of the values whose nodes were taken out.
    site, option
        For a lossy rewrite, the weights it is about and the option's label.
    """

    number: int
    step: str
    title: str
    node: str
    before: Cost
    after: Cost
    replaced: tuple[str, ...] = ()
    site: tuple[str, ...] = ()
    option: str | None = None


@dataclass(frozen=True)
class Refused:
    """A refusal and the step that met it."""

    step: str
    refusal: Refusal


@dataclass
class RewriteRecord:
    """Everything applied and refused, in order."""

    applied: list[Applied] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    sweeps: int = 0

    def refuse(self, step: str, refusal: Refusal) -> None:
        """Note a refusal once; sweeps meet the same site again."""
        entry = Refused(step, refusal)
        if entry not in self._seen:
            self._seen.add(entry)
            self.refused.append(entry)

    def __post_init__(self) -> None:
        self._seen: set[Refused] = set(self.refused)


@dataclass(frozen=True)
class Snapshot:
    """The parts of a model that tell whether a library changed it."""

    operators: Counter[tuple[str, str]]
    initializers: Counter[tuple[int, str, str]]
    edges: int

    @classmethod
    def of(cls, model: ir.Model) -> Snapshot:
        """Take a snapshot; costs one walk over the model and no tensor data."""
        operators: Counter[tuple[str, str]] = Counter()
        initializers: Counter[tuple[int, str, str]] = Counter()
        edges = 0
        for scope in scopes(model):
            for value in scope.graph.initializers.values():
                tensor = value.const_value
                if tensor is not None:
                    initializers[(tensor.nbytes, tensor.dtype.name, str(tensor.shape))] += 1
            for node in scope.graph:
                operators[(node.domain, node.op_type)] += 1
                edges += sum(value is not None for value in node.inputs)
        return cls(operators, initializers, edges)

    def describe(self, later: Snapshot) -> str:
        """Say in one line what differs in a later snapshot."""
        gone, come = self.operators - later.operators, later.operators - self.operators
        parts = [f"-{n} {op}" for (_, op), n in gone.most_common(4)]
        parts += [f"+{n} {op}" for (_, op), n in come.most_common(4)]
        stored = later.initializers.total() - self.initializers.total()
        if stored:
            parts.append(f"{stored:+d} initializers")
        return ", ".join(parts) or "edges changed"
