from __future__ import annotations

import math
import weakref

import pytest

import structopt_onnx as so
from structopt_onnx.api import sites, trials
from structopt_onnx.api.sites import Site
from structopt_onnx.calibration.streaming import StreamedMoments
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option

LOCAL = (0.1, 0.01, 0.001, 0.0001)


@pytest.fixture
def site():
    options = tuple(
        Option(f"rank {8 * k}", error, Cost(100), Cost(10 * k), lambda scope, facts: None)
        for k, error in enumerate(LOCAL, 1)
    )
    return Site(None, Choice(frozenset({"w"}), "y", options, "calibration"))


def test_nothing_is_known_of_a_site_without_a_probe(site):
    assert [site.squared(k) for k in range(4)] == [math.inf] * 4
    assert site.usable("parameters") == []
    site.probe(0, math.inf)
    assert site.squared(1) == math.inf


def test_one_probe_makes_errors_proportional(site):
    site.probe(1, 0.2)
    found = [site.squared(k) for k in range(4)]
    assert found == pytest.approx([0.4, 0.04, 0.004, 0.0004])


def test_between_two_probes_errors_follow_a_power(site):
    # A hundredth of the local error made a tenth of the squared error.
    site.probe(0, math.sqrt(0.4))
    site.probe(2, math.sqrt(0.04))
    found = [site.squared(k) for k in range(4)]
    assert found == pytest.approx([0.4, math.sqrt(0.4 * 0.04), 0.04, 0.004])


def test_beyond_the_probes_the_nearest_counts(site):
    site.probe(1, 0.1)
    site.probe(2, 0.05)
    assert site.squared(0) == pytest.approx(0.1)
    assert site.squared(3) == pytest.approx(0.00025)


def test_a_probe_without_any_error_can_be_scaled(site):
    site.probe(3, 0.0)
    assert site.squared(3) == 0
    assert 0 < site.squared(0) < 1e-10


def test_sites_of_a_slow_model_are_probed_on_few_samples(models, calibration, monkeypatch):
    source = models / "digits_mlp.onnx"

    def plan():
        report = so.optimize(source, max_error=0.1, calibration=calibration, benchmark=False)
        return report.report.plan

    assert plan().probed_on == 72
    monkeypatch.setattr(trials, "_PROBE_MACS", 1)
    few, again = plan(), plan()
    assert few == again
    assert few.probed_on == 8
    assert 0 < few.final_error <= 0.1


def test_nothing_fitted_to_is_held_once_options_are_built(models, calibration, monkeypatch):
    seen, forgotten = [], []

    class Watched(StreamedMoments):
        def __getitem__(self, statistic):
            moments = super().__getitem__(statistic)
            seen.append((statistic, weakref.ref(moments.covariance)))
            return moments

        def forget(self):
            super().forget()
            forgotten.append([s for s, covariance in seen if covariance() is not None])

    monkeypatch.setattr(sites, "StreamedMoments", Watched)
    source = models / "digits_mlp.onnx"
    options = {"passes": "factor-matmul", "max_error": 0.1, "benchmark": False, "cost_seconds": 0}

    def plan(**more):
        found = so.optimize(source, calibration=calibration, **options, **more)
        return found.report.plan

    whole = plan()
    assert len({statistic for statistic, _ in seen}) > 1
    assert plan(max_memory=1) == whole  # one at a time, and the same plan
    assert forgotten == [[], []]
