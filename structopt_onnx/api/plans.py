"""Plans: an option per site, built into a model, and how to choose and loosen one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.planner import Item, cover, knapsack
from structopt_onnx.rewriting.record import RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.sites import Site

Chosen: TypeAlias = tuple[int | None, ...]
"""The number of an option per site, or None."""


@dataclass(frozen=True)
class Plan:
    """An option per site, None for sites left as they are, and the model it makes."""

    chosen: tuple[int | None, ...]
    model: ir.Model
    manager: PassManager


class Planning:
    """Chooses options for sites by what probes have told, and builds the models.

    Parameters
    ----------
    bench, exact
        The run and the model that exact passes made.
    sites
        Every site; a choice holds the number of an option per site, or None.
    """

    def __init__(self, bench: Bench, exact: ExactStage, sites: Sequence[Site]) -> None:
        self._bench = bench
        self._exact = exact
        self.sites = sites

    def build(self, chosen: Sequence[int | None]) -> Plan:
        """Apply options to a clone of the exact model; the record starts as the exact one's."""
        exact = self._exact.manager.record
        manager = replace(
            self._bench.manager(self._exact.deny),
            record=RewriteRecord(list(exact.applied), list(exact.refused), exact.sweeps),
        )
        model = self._exact.model.clone()
        done = manager.apply_plan(model, self.planned(chosen))
        applied = {id(planned.choice) for planned in done}
        kept = tuple(
            k if id(site.choice) in applied else None
            for site, k in zip(self.sites, chosen, strict=True)
        )
        return Plan(kept, model, manager)

    def planned(self, chosen: Sequence[int | None]) -> tuple[Planned, ...]:
        """Return the options themselves."""
        return tuple(
            Planned(site.step, site.choice, site.choice.options[k])
            for site, k in zip(self.sites, chosen, strict=True)
            if k is not None
        )

    def predicted(self, chosen: Sequence[int | None]) -> float:
        """Return the error predicted at the outputs: single errors added in quadrature."""
        return math.sqrt(
            sum(
                site.squared(k) for site, k in zip(self.sites, chosen, strict=True) if k is not None
            )
        )

    def choose(self, capacity: float) -> tuple[int | None, ...]:
        """Return the choice of least cost whose squared errors sum up to `capacity` at most."""
        groups, items = self._items()
        return self._chosen(groups, knapsack(items, capacity))

    def choose_saving(self, saving: float) -> tuple[int | None, ...] | None:
        """Return the choice of least squared error that saves so much; None where none does."""
        groups, items = self._items()
        found = cover(items, saving)
        return None if found is None else self._chosen(groups, found)

    def most_saving(self) -> float:
        """Return what the options on offer could save at most."""
        _, items = self._items()
        return sum(
            max((-i.value for i in group if math.isfinite(i.weight)), default=0.0)
            for group in items
        )

    def _items(self) -> tuple[list[list[tuple[int, int]]], list[list[Item]]]:
        """Return site and option of everything on offer, by group, and what it means to plan."""
        objective = self._bench.options.objective
        groups = [
            [(n, k) for n in members for k in self.sites[n].usable(objective)]
            for members in self._groups()
        ]
        items = [
            [Item(self.sites[n].squared(k), self.sites[n].saving(k, objective)) for n, k in group]
            for group in groups
        ]
        return groups, items

    def _chosen(
        self, groups: Sequence[Sequence[tuple[int, int]]], found: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        chosen: list[int | None] = [None] * len(self.sites)
        for group, index in zip(groups, found, strict=True):
            if index is not None:
                n, k = group[index]
                chosen[n] = k
        return tuple(chosen)

    def _groups(self) -> list[list[int]]:
        """Return the sites that share a weight together: one option at most is for all of them."""
        groups: list[tuple[set[str], list[int]]] = []
        for n, site in enumerate(self.sites):
            weights, members = set(site.choice.site), [n]
            apart = []
            for other in groups:
                if other[0] & weights:
                    weights |= other[0]
                    members = other[1] + members
                else:
                    apart.append(other)
            groups = [*apart, (weights, members)]
        return [members for _, members in groups]

    def value(self, chosen: Sequence[int | None]) -> float:
        """Return the change of cost that a choice brings; less is better."""
        objective = self._bench.options.objective
        return sum(
            site.saving(k, objective)
            for site, k in zip(self.sites, chosen, strict=True)
            if k is not None
        )

    def retreat(self, chosen: Sequence[int | None], share: float) -> tuple[Chosen, list[str]]:
        """Take options with most error per gain back, to safer ones or to none.

        Parameters
        ----------
        chosen
            The choice that missed.
        share
            How much of its predicted squared error may be left.

        Returns
        -------
        chosen
            The new choice.
        undone
            What was taken back, a line per option and site.
        """
        objective = self._bench.options.objective
        most = self.predicted(chosen) ** 2 * share
        now = list(chosen)
        taken: set[int] = set()
        # One at least, whatever the prediction: the plan did miss.
        while any(k is not None for k in now) and not (taken and self.predicted(now) ** 2 <= most):
            n, k = max(
                ((n, k) for n, k in enumerate(now) if k is not None),
                key=lambda place: self.sites[place[0]].error_per_gain(place[1], objective),
            )
            site = self.sites[n]
            safer = [o for o in site.usable(objective) if site.squared(o) < site.squared(k)]
            now[n] = max(safer, key=site.squared, default=None)
            taken.add(n)
        return tuple(now), [self._undone(n, chosen[n], now[n]) for n in sorted(taken)]

    def _undone(self, n: int, before: int | None, after: int | None) -> str:
        labels = [
            "none" if k is None else self.sites[n].choice.options[k].label for k in (before, after)
        ]
        return f"{self.sites[n].label}: {' -> '.join(labels)}"
