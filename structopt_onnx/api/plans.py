"""Plans: an option per site, built into a model, and how to choose and loosen one."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from structopt_onnx.rewriting.bundles import Bundle, bundles
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

    chosen: Chosen
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

    def choose(self, capacity: float) -> Chosen:
        """Return the choice of least cost whose squared errors sum up to `capacity` at most."""
        groups, items = self._items()
        return self._chosen(groups, knapsack(items, capacity))

    def choose_saving(self, saving: float) -> Chosen | None:
        """Return the choice of least squared error that saves so much; None where none does."""
        groups, items = self._items()
        found = cover(items, saving)
        return None if found is None else self._chosen(groups, found)

    def choose_evenly(self, saving: float) -> Chosen | None:
        """Return the choice that saves so much by the same share of what each group could save.

        It does not rest on errors that add up, as they hardly do where they are large.
        """
        groups, items = self._items()
        offered = [
            {k: i for k, i in enumerate(group) if math.isfinite(i.weight)} for group in items
        ]
        most = [max((-i.value for i in group.values()), default=0.0) for group in offered]

        def evenly(share: float) -> list[int | None]:
            return [
                min(
                    (k for k, i in group.items() if -i.value >= share * largest),
                    key=lambda k: group[k].weight,
                    default=None,
                )
                for group, largest in zip(offered, most, strict=True)
            ]

        def saved(found: Sequence[int | None]) -> float:
            return sum(
                -group[k].value for group, k in zip(offered, found, strict=True) if k is not None
            )

        # Shares at which some option is just enough: between them nothing changes.
        shares = sorted(
            {
                -i.value / largest
                for group, largest in zip(offered, most, strict=True)
                for i in group.values()
                if largest > 0
            }
        )
        enough = bisect_left(shares, saving, key=lambda share: saved(evenly(share)))
        return None if enough == len(shares) else self._chosen(groups, evenly(shares[enough]))

    def most_saving(self) -> float:
        """Return what the options on offer could save at most."""
        _, items = self._items()
        return sum(
            max((-i.value for i in group if math.isfinite(i.weight)), default=0.0)
            for group in items
        )

    def _items(self) -> tuple[list[list[Bundle]], list[list[Item]]]:
        """Return bundles of everything on offer, by group, and what each means to the plan."""
        objective = self._bench.options.objective

        def item(n: int, k: int) -> Item:
            return Item(self.sites[n].squared(k), self.sites[n].saving(k, objective))

        groups = [
            bundles(
                [(n, self.sites[n].choice.site) for n in members],
                lambda n: self.sites[n].usable(objective),
                item,
            )
            for members in self._groups()
        ]
        items = [
            [
                Item(sum(i.weight for i in parts), sum(i.value for i in parts))
                for parts in ([item(n, k) for n, k in bundle] for bundle in group)
            ]
            for group in groups
        ]
        return groups, items

    def _chosen(self, groups: Sequence[Sequence[Bundle]], found: Sequence[int | None]) -> Chosen:
        chosen: list[int | None] = [None] * len(self.sites)
        for group, index in zip(groups, found, strict=True):
            for n, k in group[index] if index is not None else ():
                chosen[n] = k
        return tuple(chosen)

    def _groups(self) -> list[list[int]]:
        """Return the sites that share weights, also by way of others, together."""
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

    def safer(self, chosen: Chosen, share: float) -> Chosen | None:
        """Plan anew for a share of the squared error predicted of a choice; None where none is."""
        found = self.choose(self.predicted(chosen) ** 2 * share)
        return None if found == chosen or all(k is None for k in found) else found

    def differences(self, before: Chosen, after: Chosen) -> list[str]:
        """Say what became of every option of a choice, such as ``w: rank 32 -> none``."""
        return [
            f"{site.label}: {site.option_label(was)} -> {site.option_label(now)}"
            for site, was, now in zip(self.sites, before, after, strict=True)
            if was != now
        ]
