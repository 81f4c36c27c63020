"""Measured times in the place of predicted ones, for what lossy passes offer."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.errors import ModelError
from structopt_onnx.model.patch import Patch
from structopt_onnx.report.plan_record import CostReport
from structopt_onnx.rewriting.region import Region, regions
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.cost_cache import CostCache
from structopt_onnx.runtime.micro_benchmark import MicroSettings, time_regions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.api.sites import Site
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.rewriting.passes import Choice, Option

MEASURABLE = frozenset(name for name, target in TARGETS.items() if target.is_measured)
"""Targets that this machine can stand for."""

# Options timed per site; between them the ratio of measured to predicted time is interpolated.
_MOST_TIMED = 12
# Describing options, which takes their factors, may use up this share of the time.
_DESCRIBING = 0.5


def measured(bench: Bench, facts: Facts, sites: Sequence[Site]) -> CostReport | None:
    """Put measured seconds into the options of sites; None where nothing is to be measured.

    The two sides of an option are timed as models of their own, each shape once, or read from
    the cache on disk. What the time does not suffice for keeps the predicted seconds, scaled by
    what measuring showed nearby: in the same site, or over all sites.

    Parameters
    ----------
    bench
        The run; only for the objective ``time`` and a target that this machine can stand for
        anything is measured.
    facts
        Of the model that the choices are about.
    sites
        Their choices are replaced.
    """
    options = bench.options
    wanted = [site for site in sites if site.choice.options]
    if not measurable(options) or not wanted or bench.clock.over():
        return None
    bench.progress("times of regions")
    survey = _Survey(facts, time.monotonic() + _DESCRIBING * options.cost_seconds)
    survey.look_at(wanted)
    cache = CostCache()
    timing = MicroSettings(
        seconds=max(0.0, survey.deadline - time.monotonic()) + options.cost_seconds / 2,
        working_set=sum(
            value.const_value.nbytes
            for value in facts.model.graph.initializers.values()
            if value.const_value is not None
        ),
        seed=options.seed,
    )
    known = {text: cache.get(text) for text in survey.found}
    missing = [text for text, seconds in known.items() if seconds is None]
    failed = ""
    try:
        fresh = time_regions([survey.found[text] for text in missing], timing)
    except ModelError as error:
        # Predictions are there already: losing the process costs accuracy, not the run.
        fresh, failed = [None] * len(missing), str(error)
    for text, seconds in zip(missing, fresh, strict=True):
        if seconds is not None:
            known[text] = seconds
            cache.put(text, seconds)
    cache.save()
    times = {text: seconds for text, seconds in known.items() if seconds is not None}
    timed = [survey.timed(site, times) for site in wanted]
    ratios = [ratio for points in timed for _, ratio in points.values()]
    overall = statistics.median(ratios) if ratios else 1.0
    for site, points in zip(wanted, timed, strict=True):
        site.choice = _with_seconds(site.choice, points, overall)
    return CostReport(
        regions=len(known),
        measured=sum(seconds is not None for seconds in fresh),
        cached=len(known) - len(missing),
        ratio=overall,
        failed=failed,
    )


def measurable(options: OptimizeOptions) -> bool:
    """Whether a run with these options asks for times that can be measured here."""
    asked = options.objective == "time" and options.cost_seconds > 0
    return asked and options.target in MEASURABLE


@dataclass
class _Survey:
    """What there is to be timed: the regions of sites, the most telling first.

    Parameters
    ----------
    facts
        Of the model.
    deadline
        When to stop describing more.
    found
        Regions by signature.
    """

    facts: Facts
    deadline: float
    found: dict[str, Region] = field(default_factory=dict)
    _before: dict[int, str] = field(default_factory=dict)
    _after: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def look_at(self, sites: Sequence[Site]) -> None:
        """Describe the sites as they are, then options from the far ends inwards."""
        for site in sites:
            sides = self._sides(min(_usable(site), key=_parameters, default=None))
            if sides is not None and sides[0] is not None:
                text = self._note(sides[0])
                self._before[id(site)] = text
        queues = [(site, _coarse_to_fine(_usable(site))) for site in sites]
        while queues and time.monotonic() < self.deadline:
            later = []
            for site, queue in queues:
                if id(site) not in self._before or time.monotonic() >= self.deadline:
                    continue
                option = next(queue, None)
                if option is None:
                    continue
                later.append((site, queue))
                key = self._key(site, option)
                if key not in self._after:
                    sides = self._sides(option)
                    after = None if sides is None else sides[1]
                    self._after[key] = "" if after is None else self._note(after)
            queues = later

    def timed(self, site: Site, times: dict[str, float]) -> dict[str, tuple[float, float]]:
        """Return predicted seconds, and how many times longer it takes, by label.

        The label "" stands for the site as it is. Empty when that was not timed.
        """
        now = times.get(self._before.get(id(site), ""))
        predicted = site.choice.options[0].before.seconds
        if now is None or not predicted:
            return {}
        points = {"": (predicted, now / predicted)}
        for option in site.choice.options:
            then = times.get(self._after.get(self._key(site, option), ""))
            if then is not None and option.after.seconds:
                points[option.label] = (option.after.seconds, then / option.after.seconds)
        return points

    def _key(self, site: Site, option: Option) -> tuple[str, str, str]:
        """Sites of one pass that are equal now are equal with an option of the same name."""
        return site.step.text(), self._before.get(id(site), ""), option.label

    def _note(self, region: Region) -> str:
        text = region.signature()
        self.found.setdefault(text, region)
        return text

    def _sides(self, option: Option | None) -> tuple[Region | None, Region | None] | None:
        if option is None:
            return None
        patch = option.patch(self.facts.scopes[0], self.facts)
        return regions(patch, self.facts) if isinstance(patch, Patch) else None


def _usable(site: Site) -> list[Option]:
    return [o for k, o in enumerate(site.choice.options) if site.allowed(k)]


def _parameters(option: Option) -> int:
    return option.after.parameters


def _coarse_to_fine(options: Sequence[Option]) -> Iterator[Option]:
    """Yield a bounded number of options, evenly spread in cost: the ends, the middle, ..."""
    ordered = sorted(options, key=lambda o: (o.after.seconds or 0.0, o.label))
    places: dict[int, None] = {}
    for parts in (1, 2, 4, 8, _MOST_TIMED - 1):
        places |= {round(k * (len(ordered) - 1) / parts): None for k in range(parts + 1)}
    yield from (ordered[k] for k in list(places)[:_MOST_TIMED] if ordered)


def _with_seconds(choice: Choice, points: dict[str, tuple[float, float]], overall: float) -> Choice:
    """Return a choice with measured seconds, interpolated where they were not measured."""
    ordered = sorted(points.values())
    seconds, ratios = [p[0] for p in ordered], [p[1] for p in ordered]

    def real(predicted: float | None, label: str) -> float | None:
        if predicted is None:
            return None
        if label in points:
            return predicted * points[label][1]
        return predicted * (float(np.interp(predicted, seconds, ratios)) if points else overall)

    return replace(
        choice,
        options=tuple(
            replace(
                option,
                before=replace(option.before, seconds=real(option.before.seconds, "")),
                after=replace(option.after, seconds=real(option.after.seconds, option.label)),
            )
            for option in choice.options
        ),
    )
