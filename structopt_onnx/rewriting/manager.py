"""The manager: runs steps to a fixed point and is the only caller of `Patch.apply`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from structopt_onnx.errors import InternalError, ModelError, StructoptError
from structopt_onnx.linalg.workers import Workers
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.patch import Names, Patch
from structopt_onnx.model.validity import interface, problems, restore_interface
from structopt_onnx.rewriting.cost import graph_cost
from structopt_onnx.rewriting.passes import Choice, Cleanup, Option, Pass, Refusal, Step
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.record import Applied, RewriteRecord, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.rewriting.gates import Gate
    from structopt_onnx.rewriting.target import Target

_MOST_SWEEPS = 20
# A node takes about this much of a file; folding may trade nodes for small constants.
_NODE_BYTES = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
    """An option of a choice that is to be applied."""

    step: Pass
    choice: Choice
    option: Option


@dataclass
class PassManager:
    """Applies what passes propose and gates admit.

    Parameters
    ----------
    target
        Where costs are predicted.
    gates
        Every patch and library step must be admitted by all of them.
    shapes, statistics, workers
        Handed to passes through `Facts`.
    progress
        Called with a line about what runs now.
    """

    target: Target
    gates: Sequence[Gate] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    statistics: Mapping[Statistic, Moments] = field(default_factory=dict)
    workers: Workers = field(default_factory=Workers)
    progress: Callable[[str], None] = lambda _: None
    check_each_patch: bool = False
    record: RewriteRecord = field(default_factory=RewriteRecord)

    def facts(self, model: ir.Model) -> Facts:
        """Return the facts of a model as it stands."""
        return Facts(model, shapes=self.shapes, statistics=self.statistics, workers=self.workers)

    def run(self, model: ir.Model, steps: Sequence[Step]) -> ir.Model:
        """Run exact passes and library steps until nothing changes.

        Parameters
        ----------
        model
            Edited in place by patches; a library step that is kept replaces it by a clone.
        steps
            In order.

        Returns
        -------
        onnx_ir.Model
            The model to go on with.

        Raises
        ------
        InternalError
            When a pass raises, proposes a malformed patch, leaves an invalid graph, or the
            steps do not come to rest in 20 sweeps.
        """
        settled: dict[str, int] = {}
        for _ in range(_MOST_SWEEPS):
            start = len(self.record.applied)
            for step in steps:
                now = len(self.record.applied)
                if isinstance(step, Cleanup):
                    if settled.get(step.name) != now:
                        model = self._clean(model, step)
                        settled[step.name] = len(self.record.applied)
                else:
                    for _ in range(_MOST_SWEEPS):
                        if not self._sweep(model, step):
                            break
            self.record.sweeps += 1
            if len(self.record.applied) == start:
                return model
        last = {entry.step for entry in self.record.applied[start:]}
        raise InternalError(
            f"no fixed point after {_MOST_SWEEPS} sweeps: {', '.join(sorted(last))}"
        )

    def choices(self, model: ir.Model, step: Pass) -> list[Choice]:
        """Collect what a lossy pass offers on a model; refusals go to the record."""
        return [p for p in self._proposals(step, self.facts(model)) if isinstance(p, Choice)]

    def apply_plan(self, model: ir.Model, plan: Iterable[Planned]) -> list[Planned]:
        """Apply options one by one, re-matching each on the model as it stands.

        Returns
        -------
        list of Planned
            Those really applied; the others are in the record as refusals.
        """
        names, done = Names(model), []
        for planned in plan:
            facts = self.facts(model)
            scope = facts.scopes[0]
            build = partial(planned.option.patch, scope, facts)
            patch = self._guard(planned.step, build)
            if isinstance(patch, Refusal):
                self.record.refuse(planned.step.name, patch)
                continue
            site, label = tuple(sorted(planned.choice.site)), planned.option.label
            if self._admit(model, planned.step, patch, facts, names=names, site=site, option=label):
                done.append(planned)
        self._finish(model, "plan")
        return done

    def _sweep(self, model: ir.Model, step: Pass) -> bool:
        """Apply what one pass proposes on the model as it stands; tell whether it did anything."""
        facts = self.facts(model)
        patches = [p for p in self._proposals(step, facts) if isinstance(p, Patch)]
        if not patches:
            return False
        names, count = Names(model), 0
        for patch in patches:
            # After others, a patch that no longer fits waits for the next sweep.
            if not patch.stale() and not (count and _outdated(patch)):
                count += self._admit(model, step, patch, facts, names=names)
        if count:
            self._finish(model, step.name)
        return count > 0

    def _proposals(self, step: Pass, facts: Facts) -> list[Patch | Choice | Refusal]:
        self.progress(step.name)
        found: list[Patch | Choice | Refusal] = []
        for scope in facts.scopes:
            found += self._guard(step, partial(_listed, step, scope, facts))
        for proposal in found:
            if isinstance(proposal, Refusal):
                self.record.refuse(step.name, proposal)
        return found

    def _admit(
        self,
        model: ir.Model,
        step: Pass,
        patch: Patch,
        facts: Facts,
        *,
        names: Names,
        site: tuple[str, ...] = (),
        option: str | None = None,
    ) -> bool:
        self._guard(step, patch.check)
        for gate in self.gates:
            refusal = gate.admit(step, patch, facts)
            if refusal is not None:
                self.record.refuse(step.name, refusal)
                return False
        number = len(self.record.applied) + 1
        before, after = patch_cost(patch, facts, self.target)
        anchor = patch.anchor.name or ""
        replaced = self._guard(step, lambda: patch.apply(names, pass_name=step.name, number=number))
        if self.check_each_patch:
            self._finish(model, f"{step.name}, patch {number}")
        self.record.applied.append(
            Applied(number, step.name, patch.title, anchor, before, after, replaced, site, option)
        )
        return True

    def _clean(self, model: ir.Model, step: Cleanup) -> ir.Model:
        self.progress(step.name)
        facts = self.facts(model)
        size = sum(len(scope.graph) for scope in facts.scopes)
        if step.largest is not None and size > step.largest:
            detail = f"{size} nodes, this library step scales to {step.largest}"
            self.record.refuse(step.name, Refusal("too-many-nodes", detail, model.graph.name or ""))
            return model
        edited, was = model.clone(), Snapshot.of(model)
        try:
            step.run(edited)
        except Exception as error:  # noqa: BLE001 - a library's bug costs its step, not the run
            detail = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self.record.refuse(step.name, Refusal("library-failed", detail, model.graph.name or ""))
            return model
        restore_interface(edited, model)
        now = Snapshot.of(edited)
        if now == was:
            return model
        before, after = graph_cost(model, facts), graph_cost(edited, self.facts(edited))
        grown = after.bytes - before.bytes - _NODE_BYTES * (before.nodes - after.nodes)
        refusal = None
        if interface(edited) != interface(model) or problems(edited):
            refusal = Refusal("library-broke-model", was.describe(now), model.graph.name or "")
        elif grown > 0:
            refusal = Refusal("library-grew-model", f"{grown} bytes more", model.graph.name or "")
        else:
            refusal = next(
                (r for gate in self.gates if (r := gate.admit(step, None, facts)) is not None), None
            )
        if refusal is not None:
            self.record.refuse(step.name, refusal)
            return model
        number = len(self.record.applied) + 1
        before = replace(before, seconds=self.target.seconds(before))
        after = replace(after, seconds=self.target.seconds(after))
        self.record.applied.append(Applied(number, step.name, was.describe(now), "", before, after))
        return edited

    def _finish(self, model: ir.Model, what: str) -> None:
        try:
            for scope in self.facts(model).scopes:
                scope.graph.sort()
        except ValueError as error:
            raise InternalError(f"{what} left a graph with a cycle: {error}") from error
        found = problems(model)
        if found:
            raise InternalError(f"{what} left an invalid graph: {found[0]}")

    @staticmethod
    def _guard(step: Step, call: Callable[[], T]) -> T:
        try:
            return call()
        except ModelError:
            raise  # of the samples: they are run when a pass asks for statistics
        except StructoptError as error:
            raise InternalError(f"{step.name}: {error}") from error
        except Exception as error:
            raise InternalError(f"{step.name}: {type(error).__name__}: {error}") from error


def _outdated(patch: Patch) -> bool:
    try:
        patch.check()
    except InternalError:
        return True
    return False


def _listed(step: Pass, scope: Scope, facts: Facts) -> list[Patch | Choice | Refusal]:
    return list(step.propose(scope, facts))
