"""Plans: an option per site, built into a model, and how to choose and loosen one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.planner import Item, knapsack
from structopt_onnx.rewriting.record import RewriteRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.api.sites import Site


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
        objective = self._bench.options.minimize
        groups = [
            [(n, k) for n in members for k in self.sites[n].usable(objective)]
            for members in self._groups()
        ]
        items = [
            [Item(self.sites[n].squared(k), self.sites[n].saving(k, objective)) for n, k in group]
            for group in groups
        ]
        chosen: list[int | None] = [None] * len(self.sites)
        for group, index in zip(groups, knapsack(items, capacity), strict=True):
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
        objective = self._bench.options.minimize
        return sum(
            site.saving(k, objective)
            for site, k in zip(self.sites, chosen, strict=True)
            if k is not None
        )

    def retreat(self, plan: Plan, share: float = 1.0) -> tuple[list[int | None], str]:
        """Take the option with most error per gain back to a safer one, or to none.

        Parameters
        ----------
        plan
            The plan that missed.
        share
            The safer option must cause less than this share of the squared error.

        Returns
        -------
        chosen
            The new choice.
        undone
            What was taken back, for the report.
        """
        worst = self._worst(plan)
        site, now = self.sites[worst], plan.chosen[worst] or 0
        most = site.squared(now) * share
        usable = site.usable(self._bench.options.minimize)
        safer = [k for k in usable if site.squared(k) < most]
        chosen = list(plan.chosen)
        chosen[worst] = max(safer, key=site.squared, default=None)
        options = site.choice.options
        instead = "none" if chosen[worst] is None else options[chosen[worst] or 0].label
        return chosen, f"{site.label}: {options[now].label} -> {instead}"

    def _worst(self, plan: Plan) -> int:
        objective = self._bench.options.minimize
        return max(
            (n for n, k in enumerate(plan.chosen) if k is not None),
            key=lambda n: self.sites[n].error_per_gain(plan.chosen[n], objective),
        )
