from __future__ import annotations

from types import SimpleNamespace

import pytest

from structopt_onnx.api.budgets import for_cost
from structopt_onnx.api.judge import Measured
from structopt_onnx.api.keep import Keep
from structopt_onnx.api.plans import Planning
from structopt_onnx.api.sites import Site
from structopt_onnx.api.trials import Trial
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option

# Parameters left of each of three layers, and the local error of that.
LEFT = {80: 0.01, 60: 0.02, 40: 0.04, 20: 0.08}
EVEN, UNEVEN = (1, 1, 1), (None, 2, 2)


def layer(name: str, error: float) -> Site:
    options = tuple(
        Option(f"rank {left}", local, Cost(100), Cost(left), lambda scope, facts: None)
        for left, local in LEFT.items()
    )
    site = Site(None, Choice(frozenset({name}), "y", options, "calibration"))
    site.probe(0, error)
    return site


@pytest.fixture
def bench():
    return SimpleNamespace(
        options=SimpleNamespace(objective="parameters"),
        model=None,
        shapes={},
        cost=lambda model, shapes: Cost(300),
        planned_cost=lambda model: Cost(300 - model[0]),
    )


@pytest.fixture
def planning(bench):
    return Planning(bench, None, [layer("a", 0.5), layer("b", 0.01), layer("c", 0.03)])


class Fake:
    """Trials of known errors."""

    def __init__(self, planning, errors):
        self.planning = planning
        self.errors = errors
        self.looked = []

    def over(self):
        return False

    def of(self, chosen):
        self.looked.append(chosen)
        return Trial(chosen, Measured(self.errors.get(chosen, 1.0)), 0.0)

    def plan(self, trial):
        return SimpleNamespace(model=(-self.planning.value(trial.chosen),))

    def reprobe(self, trial):
        pass


def test_an_even_cut_takes_the_same_share_of_every_group(planning):
    assert planning.choose_evenly(120) == EVEN
    assert planning.choose_evenly(110) == EVEN
    assert planning.choose_evenly(240) == (3, 3, 3)
    assert planning.choose_evenly(1) == (0, 0, 0)
    assert planning.choose_evenly(241) is None
    assert planning.choose_saving(120) == UNEVEN


def test_an_even_cut_takes_the_better_of_two_ways_to_rewrite_a_weight(planning):
    planning.sites[0] = layer("b", 0.005)
    assert planning.choose_evenly(80) == (1, None, 1)


def test_a_plan_measured_for_another_share_is_taken_as_it_is(bench, planning):
    trials = Fake(planning, {EVEN: 0.4, UNEVEN: 0.3})
    found = [for_cost(bench, trials, Keep("parameters", 0.6), Cost(300))[0] for _ in range(2)]
    assert [trial.chosen for trial in found] == [UNEVEN, UNEVEN]


@pytest.mark.parametrize(("even", "best"), [(0.2, EVEN), (0.4, UNEVEN)])
def test_where_errors_do_not_add_up_the_even_cut_may_be_kept(bench, planning, even, best):
    trials = Fake(planning, {EVEN: even, UNEVEN: 0.3})
    trial, why = for_cost(bench, trials, Keep("parameters", 0.6), Cost(300))
    assert (trial.chosen, why) == (best, "")
    assert trials.looked == [UNEVEN, EVEN]
