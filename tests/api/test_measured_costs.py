from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import structopt_onnx as so
from structopt_onnx.api import measured_costs, multiples
from structopt_onnx.api.measured_costs import _coarse_to_fine, _with_seconds
from structopt_onnx.api.multiples import with_measured_multiples
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.errors import ModelError
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.rewriting.target import TARGETS

_MODELS = Path(__file__).resolve().parents[2] / "models"


def _by_rank(region) -> float:
    """One second for a layer as it is, a millisecond per rank for a pair."""
    if len(region.graph.node) == 1:
        return 1.0
    return 1e-3 * min(size for weight in region.weights for size in weight.shape)


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Stand in for the measuring process, with a cache of its own."""
    monkeypatch.setenv("STRUCTOPT_ONNX_CACHE", str(tmp_path))
    monkeypatch.setattr(measured_costs, "MEASURABLE", frozenset({"cpu"}))
    monkeypatch.setattr(multiples, "rank_multiple", lambda *_: None)
    asked: list[list[str]] = []

    def start(answer=_by_rank):
        def time_regions(regions, settings):
            asked.append([region.signature() for region in regions])
            return [answer(region) for region in regions]

        monkeypatch.setattr(measured_costs, "time_regions", time_regions)
        return asked

    return start


def _plan(**options):
    report = so.optimize(
        _MODELS / "digits_mlp.onnx",
        calibration=_MODELS / "digits_mlp_calibration.npz",
        max_error=0.2,
        benchmark=False,
        **{"passes": "factor-matmul"} | options,
    ).report
    assert report.plan is not None
    return report.plan


def test_options_carry_measured_seconds(clock):
    asked = clock()
    plan = _plan()
    assert plan.sites
    for site in plan.sites:
        assert site.cost.seconds == pytest.approx(1.0)
        ranks = {o.cost.seconds: int(o.label.split()[1]) for o in site.options}
        # Those between are interpolated.
        timed = [r for seconds, r in ranks.items() if seconds == pytest.approx(1e-3 * r)]
        assert len(timed) > len(ranks) / 2
    assert plan.costs.measured == plan.costs.regions == len(asked[0])
    assert len(asked[0]) > len({site.weights for site in plan.sites})
    assert len(set(asked[0])) == len(asked[0])


def test_the_second_run_reads_the_first_ones_times(clock):
    asked = clock()
    first, second = _plan(), _plan()
    assert asked[1] == []
    assert (second.costs.measured, second.costs.cached) == (0, first.costs.regions)
    assert second.sites == first.sites


def test_what_takes_longer_is_not_chosen(clock):
    clock(lambda region: float(len(region.graph.node)))
    plan = _plan()
    assert all(site.chosen is None for site in plan.sites)
    assert plan.sites[0].why == "no option lowers the cost"


@pytest.mark.parametrize("options", [{"minimize": "bytes"}, {"cost_seconds": 0}, {"time_limit": 0}])
def test_nothing_is_timed_where_it_is_of_no_use(clock, options):
    asked = clock()
    assert _plan(**options).costs is None
    assert not asked


def test_predictions_stay_when_nothing_could_be_timed(clock):
    predicted = _plan(cost_seconds=0)
    clock(lambda _: None)
    plan = _plan()
    assert (plan.costs.measured, plan.costs.ratio) == (0, 1.0)
    assert plan.sites == predicted.sites


def test_predictions_are_scaled_by_what_was_timed(clock):
    predicted = _plan(cost_seconds=0)
    timed: list[str] = []

    def only_the_first(region) -> float | None:
        text = region.signature()
        timed[:] = timed or [text]
        return 0.5 if timed == [text] else None

    clock(only_the_first)
    plan = _plan()
    first = plan.sites[0].cost.seconds
    assert first == 0.5
    assert plan.costs.ratio == pytest.approx(first / predicted.sites[0].cost.seconds)
    for site, guess in zip(plan.sites, predicted.sites, strict=True):
        assert site.cost.seconds == pytest.approx(plan.costs.ratio * guess.cost.seconds)


def test_a_dead_measuring_process_does_not_end_the_run(clock, monkeypatch):
    clock()

    def die(*_):
        raise ModelError("micro-benchmark: the measuring process died: SIGKILL")

    monkeypatch.setattr(measured_costs, "time_regions", die)
    plan = _plan()
    assert "SIGKILL" in plan.costs.failed
    assert plan.sites[0].cost.seconds is not None


def _choice(*after: float) -> Choice:
    options = tuple(
        Option(f"rank {n}", 0.1, Cost(seconds=8.0), Cost(seconds=s, parameters=n), lambda *_: None)
        for n, s in enumerate(after)
    )
    return Choice(frozenset({"w"}), "y", options, "weights")


def test_seconds_are_interpolated_between_those_timed():
    points = {"": (8.0, 1.0), "rank 0": (2.0, 2.0)}
    options = _with_seconds(_choice(2.0, 5.0, 1.0), points, overall=9.0).options
    assert [option.after.seconds for option in options] == [4.0, 7.5, 2.0]
    assert {option.before.seconds for option in options} == {8.0}


def test_sites_that_were_not_timed_are_scaled_as_the_others_are():
    (option,) = _with_seconds(_choice(2.0), {}, overall=1.5).options
    assert (option.before.seconds, option.after.seconds) == (12.0, 3.0)


def test_the_ends_come_first_and_their_number_is_bounded():
    options = _choice(*np.linspace(1, 7, 100)).options
    order = [option.label for option in _coarse_to_fine(options)]
    assert order[:2] == ["rank 0", "rank 99"]
    assert len(order) == len(set(order)) <= measured_costs._MOST_TIMED
    assert [o.label for o in _coarse_to_fine(options[:1])] == ["rank 0"]
    assert not list(_coarse_to_fine(()))


def _multiples(monkeypatch, **found):
    monkeypatch.setattr(measured_costs, "MEASURABLE", frozenset({"cpu"}))
    monkeypatch.setattr(multiples, "rank_multiple", lambda kind, *_: found.get(kind))
    return with_measured_multiples(OptimizeOptions(max_error=0.1))


def test_measured_multiples_become_part_of_the_pipeline(monkeypatch):
    options = _multiples(monkeypatch, conv=8)
    assert "factor-conv{target=cpu:8:8}" in options.passes
    steps = {step.name: step for step in options.steps()}
    target = TARGETS[steps["factor-conv"].target]
    assert (target.rank_multiple, target.conv_rank_multiple) == (8, 8)
    assert options.target == "cpu"


@pytest.mark.parametrize("found", [{}, {"matmul": 8, "conv": 16}])
def test_the_usual_multiples_change_nothing(monkeypatch, found):
    assert _multiples(monkeypatch, **found).passes is None


def test_a_users_own_target_stays(monkeypatch):
    monkeypatch.setattr(measured_costs, "MEASURABLE", frozenset({"cpu"}))
    monkeypatch.setattr(multiples, "rank_multiple", lambda *_: 32)
    passes = "share-initializers,factor-matmul{target=cpu:4:4}"
    options = with_measured_multiples(OptimizeOptions(max_error=0.1, passes=passes))
    assert pipeline_text(options.steps()) == passes


@pytest.mark.parametrize("name", ["gpu", "cpu:8", "cpu:8:8:8", "gpu:8:8"])
def test_a_target_has_to_exist(name):
    with pytest.raises(KeyError):
        TARGETS[name]
