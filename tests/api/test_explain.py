from __future__ import annotations

from pathlib import Path

import pytest

import structopt_onnx as so

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_it_says_what_would_apply_and_writes_nothing(padded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = so.explain(padded)
    done = so.optimize(padded, benchmark=False).report
    assert report.applied == done.applied
    assert report.after.cost == done.after.cost
    assert report.before == done.before
    assert report.output is None
    assert report.validation is None
    assert report.comparison is None
    assert list(tmp_path.iterdir()) == []


def test_lossy_sites_are_listed_with_what_their_weights_say(padded):
    report = so.explain(padded, passes="normalize,remove-identities,factor-matmul")
    sites = {site.weights: site for site in report.plan.sites}
    assert set(sites) == {("0.weight",), ("2.weight",), ("4.weight",)}
    assert {site.basis for site in sites.values()} == {"weights"}
    assert all(site.chosen is None for site in sites.values())
    assert "no calibration data" in sites["2.weight",].why
    assert (report.samples.synthetic, report.samples.fit) == (True, 0)


def test_with_data_options_have_local_errors_by_activations(padded, calibration):
    report = so.explain(padded, calibration=calibration, max_error=0.05)
    site = next(site for site in report.plan.sites if site.weights == ("2.weight",))
    assert site.basis == "calibration"
    assert site.why == "not probed"
    assert site.probes == ()
    assert all(option.output_error is None for option in site.options)
    local = [option.local_error for option in site.options]
    assert local == sorted(local, reverse=True)
    assert report.samples.fit == 215


@pytest.mark.parametrize("model", ["digits_mlp", "digits_cnn"])
def test_what_a_rank_leaves_out_is_the_rest_of_the_spectrum(model):
    path = MODELS / f"{model}.onnx"
    report = so.explain(path, calibration=MODELS / f"{model}_calibration.npz", max_error=0.05)
    cuts = [
        (option, site.spectrum)
        for site in report.plan.sites
        for option in site.options
        if option.rank
    ]
    assert len(cuts) >= 4
    for option, spectrum in cuts:
        assert str(option.rank) in option.label.split()
        kept = sum(share for number, share in spectrum if number <= option.rank)
        assert option.local_error == pytest.approx(1 - kept, abs=2e-3)
    for site in report.plan.sites:
        assert bool(site.spectrum) == (site.step in {"factor-matmul", "factor-conv"})
    assert report.plan.budget == 0.05


def test_refusals_have_their_reasons(models, padded):
    report = so.explain(padded, skip=("identity_0",))
    refused = {(r.step, r.refusal.code, r.refusal.node) for r in report.refused}
    assert ("remove-identities", "name-filter", "identity_0") in refused
    # Lossy passes refuse as well: the regression's weight has one column.
    sparse = so.explain(models / "sparse_linear_regression.onnx")
    assert {r.refusal.code for r in sparse.refused if r.step == "factor-matmul"} == {"no-rank-pays"}
    assert sparse.plan.sites == ()


def test_a_wrong_pass_is_not_hidden_by_a_check(saturate, padded):
    report = so.explain(padded, passes="saturate{limit=0.01}")
    assert [entry.step for entry in report.applied] == ["saturate", "saturate"]
    assert report.plan is None


def test_too_few_samples_to_split_are_all_used(padded, rows):
    report = so.explain(padded, calibration={"x": rows[:2]}, passes="factor-matmul")
    assert report.samples.fit == 2
    assert len({site.weights for site in report.plan.sites}) == 3


def test_a_wrong_option_is_named(padded):
    with pytest.raises(so.UsageError, match=r"explain.*max_eror"):
        so.explain(padded, max_eror=1)
