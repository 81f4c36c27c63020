"""Gates: policies that admit or refuse a patch that is legal."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup, Pass, Refusal, Step
from structopt_onnx.rewriting.patch_cost import patch_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.rewriting.cost import Objective
    from structopt_onnx.rewriting.target import Target


class Gate(Protocol):
    """A policy on patches; `patch` is None for a library clean-up step."""

    def admit(self, step: Step, patch: Patch | None, facts: Facts) -> Refusal | None:
        """Return None to admit, or why not."""
        ...


@dataclass(frozen=True)
class MustPay:
    """Refuse a patch that does not lower (cost by the objective, nodes) lexicographically.

    Passes marked canonical are let through; so are library steps, which the manager measures.
    A lossy patch was weighed by the planner, maybe by times measured: where time is minimized it
    need only have fewer products or bytes.

    Parameters
    ----------
    target
        Predicts the time.
    objective
        What must fall.
    encoded
        Whether weights with zeros will be stored encoded in the end, and count as that.
    """

    target: Target
    objective: Objective = "time"
    encoded: bool = False

    def admit(self, step: Step, patch: Patch | None, facts: Facts) -> Refusal | None:
        """Return None to admit, or why not."""
        if patch is None or (isinstance(step, Pass) and step.canonical):
            return None
        before, after = patch_cost(patch, facts, self.target, encoded=self.encoded)
        was = (before.of(self.objective), before.nodes, before.bytes)
        becomes = (after.of(self.objective), after.nodes, after.bytes)
        if becomes < was:
            return None
        fewer = after.macs < before.macs or after.bytes < before.bytes
        if self.objective == "time" and step.exactness is Exactness.LOSSY and fewer:
            return None
        detail = f"{self.objective} {was[0]:.3g} -> {becomes[0]:.3g}"
        return Refusal("does-not-pay", detail, patch.anchor.name or "")


@dataclass(frozen=True)
class NameFilter:
    """Admit only patches about nodes that match `only` (when given) and none of `skip`.

    Patterns are shell globs over the names of the nodes and of the weights that a patch is
    about. A library step can't be held to single nodes and is left out while a filter is set. A
    refit, which is canonical and writes new numbers only, is let through: they go where a patch
    that was admitted put nodes of its own, which have other names.
    """

    only: Sequence[str] = ()
    skip: Sequence[str] = ()

    def admit(self, step: Step, patch: Patch | None, facts: Facts) -> Refusal | None:
        """Return None to admit, or why not."""
        del facts
        if not self.only and not self.skip:
            return None
        if patch is None:
            return Refusal("name-filter", "library step left out by --only/--skip", step.name)
        edits = patch.edits.values()
        only_data = all(edit.replace_data and not (edit.remove or edit.add) for edit in edits)
        refit = isinstance(step, Pass) and step.canonical and step.exactness is Exactness.LOSSY
        if only_data and refit:
            return None
        names = {node.name or "" for node in (*patch.removed(), patch.anchor)}
        names |= {value.name or "" for value in patch.dying_initializers()}
        names |= {value.name or "" for edit in edits for value in edit.replace_data}
        chosen = not self.only or any(fnmatchcase(n, p) for n in names for p in self.only)
        skipped = any(fnmatchcase(n, p) for n in names for p in self.skip)
        if chosen and not skipped:
            return None
        return Refusal("name-filter", "left out by --only/--skip", patch.anchor.name or "")


@dataclass
class Fuel:
    """Admit this many patches (a library step counts as one), then none; None is no limit."""

    limit: int | None = None
    used: int = field(default=0, init=False)

    def admit(self, step: Step, patch: Patch | None, facts: Facts) -> Refusal | None:
        """Return None to admit, or why not."""
        del facts
        if self.limit is None or self.used < self.limit:
            self.used += 1
            return None
        name = step.name if isinstance(step, Cleanup) or patch is None else patch.anchor.name or ""
        return Refusal("out-of-fuel", f"{self.limit} patches were allowed", name)


@dataclass(frozen=True)
class Deny:
    """Refuse the named passes; a replay leaves out this way what was rolled back."""

    passes: frozenset[str]

    def admit(self, step: Step, patch: Patch | None, facts: Facts) -> Refusal | None:
        """Return None to admit, or why not."""
        del facts
        if step.name not in self.passes:
            return None
        where = (patch.anchor.name or "") if patch is not None else step.name
        return Refusal("rolled-back", f"{step.name} was rolled back", where)
