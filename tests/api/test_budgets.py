from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import structopt_onnx as so
from structopt_onnx.api.bench import prepare
from structopt_onnx.api.budgets import within_error
from structopt_onnx.api.judge import Judge, Measured
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.api.trials import Trial
from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.report.json import to_json
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.agreement import DecisionAgreement


@pytest.fixture(scope="module")
def mlp(models):
    return models / "digits_mlp.onnx", models / "digits_mlp_calibration.npz"


@pytest.fixture(scope="module")
def labels(models):
    with np.load(models / "digits_labels.npz") as arrays:
        return arrays["calibration"]


@pytest.fixture
def shrink(mlp):
    """Optimize the digits network within budgets."""

    def shrink(output=None, **budgets):
        return so.optimize(mlp[0], output, calibration=mlp[1], benchmark=False, **budgets).report

    return shrink


def decisions(path, samples):
    session = Session(path)
    return np.concatenate([session.run(feeds)["logits"].argmax(-1) for feeds in samples])


def parts(mlp):
    return load_samples(mlp[1], Session(mlp[0]).inputs).split()


def accuracy(labels):
    def accuracy(run, samples):
        found = [run(feeds)["logits"].argmax() for feeds in samples]
        return np.mean(found == labels[samples.indices])

    return accuracy


def test_decisions_agree_on_the_final_part(shrink, mlp, tmp_path):
    out = tmp_path / "out.onnx"
    report = shrink(out, metric="agreement", max_drop=0.03)
    final = parts(mlp)[2]
    agreeing = np.mean(decisions(mlp[0], final) == decisions(out, final))
    found = report.plan.metric
    assert 1 - agreeing <= 0.03
    assert found.final == pytest.approx(agreeing)
    assert found.final_original == 1
    assert found.decisions == (("logits", "largest along the last axis", 72),)
    assert report.plan.budget is None
    assert report.after.cost.parameters < 0.3 * report.before.cost.parameters
    text = " ".join(str(report).split())
    assert f"metric agreement {agreeing:.4g} (original 1), drop" in text
    assert "of 0.03 allowed, on the final part (72 samples" in text
    assert "(no error limit was set)" in text
    assert "no error limit was set: shapes, types and NaN were checked" in text


def test_a_metric_of_the_users_own_gets_runs_and_samples_of_a_part(shrink, mlp, labels, tmp_path):
    seen = set()

    def metric(run, samples):
        seen.add(tuple(samples.indices))
        assert list(run(samples[0])) == ["logits"]
        return accuracy(labels)(run, samples)

    out = tmp_path / "out.onnx"
    report = shrink(out, metric=metric, max_drop=0.02)
    _, probe, final = parts(mlp)
    assert seen == {tuple(probe.indices), tuple(final.indices)}
    was, now = (np.mean(decisions(path, final) == labels[final.indices]) for path in (mlp[0], out))
    found = report.plan.metric
    assert (found.final_original, found.final) == (pytest.approx(was), pytest.approx(now))
    assert found.drop == pytest.approx(was - now)
    assert found.drop <= 0.02
    told = json.loads(to_json(report))
    assert told["options"]["metric"].endswith("metric")
    assert told["plan"]["metric"]["drop"] == pytest.approx(was - now)


def test_a_metric_in_a_file(shrink, tmp_path):
    path = tmp_path / "my_metric.py"
    path.write_text("def steady(run, samples):\n    return 1 if len(run(samples[0])) else 0\n")
    report = shrink(metric=f"{path}:steady", max_drop=0)
    assert report.plan.metric.name == f"{path}:steady"
    assert report.plan.metric.drop == 0
    assert report.after.cost.parameters < 0.2 * report.before.cost.parameters


def test_a_drop_finer_than_the_samples_is_warned_about(shrink):
    report = shrink(metric="agreement:logits", max_drop=0.005)
    assert report.plan.metric.drop == 0
    assert "72 decisions at output 'logits' can't show a drop as small as 0.005" in " ".join(
        report.warnings
    )


def test_a_metric_and_an_error_hold_both(shrink):
    loose = shrink(metric="agreement", max_drop=1.0, max_error=0.02)
    assert 0 < loose.plan.final_error <= 0.02
    tight = shrink(metric=lambda run, samples: 1.0, max_drop=0.0, max_error=0.02)
    assert tight.after.cost == loose.after.cost
    text = " ".join(str(tight).split())
    assert "of 0.02 allowed, measured on the final part too" in text


def closeness(source, final, strictness):
    """A metric that is stricter on the final part than on the probe part."""
    original = Session(source)

    def closeness(run, samples):
        pairs = [(run(feeds)["logits"], original.run(feeds)["logits"]) for feeds in samples]
        off = math.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs))
        error = off / math.sqrt(sum((b**2).sum() for _, b in pairs))
        return -error * (strictness if samples.indices[0] == final.indices[0] else 1)

    return closeness


def test_a_plan_that_fails_on_the_final_part_is_taken_back(shrink, mlp):
    metric = closeness(mlp[0], parts(mlp)[2], 8)
    report = shrink(metric=metric, max_drop=0.1)
    plan = report.plan
    assert plan.undone
    assert all("drop" in line for line in plan.undone)
    assert plan.final_evaluations == 1 + len(plan.undone)
    assert plan.metric.drop <= 0.1
    assert 0 < plan.final_error <= 0.1 / 8
    assert plan.predicted == pytest.approx(plan.probe_error * plan.rescaled)
    assert plan.rescaled == pytest.approx(1, rel=0.2)


def test_a_plan_that_fails_by_far_is_taken_back_by_as_much(shrink, mlp):
    metric = closeness(mlp[0], parts(mlp)[2], 25)
    report = shrink(metric=metric, max_drop=0.1)
    plan = report.plan
    assert len(plan.undone) <= 4
    assert 0 < plan.final_error <= 0.1 / 25
    assert report.after.cost.parameters < report.before.cost.parameters


def test_agreement_is_planned_clear_of_the_limit(mlp):
    options = OptimizeOptions(metric="agreement", max_drop=0.03, benchmark=False)
    bench = prepare(mlp[0], options, mlp[1], lambda _: None)
    candidate = bench.model.clone()
    last = candidate.graph.initializers["4.weight"]
    noise = 0.3 * np.random.default_rng(0).normal(size=(10, 256))
    last.const_value = ir.tensor((last.const_value.numpy() + noise).astype(np.float32))
    judges = (Judge(bench, bench.samples, cautious=cautious) for cautious in (False, True))
    loose, clear = (judge.measure(candidate) for judge in judges)
    assert (loose.margin, loose.drop) == (0, clear.drop)
    share, count = clear.drop, len(bench.samples)
    assert 0 < share < 1
    assert clear.margin == pytest.approx(math.sqrt(share * (1 - share) / (count - 1)))
    at_the_limit = replace(options, max_drop=share + clear.margin / 2)
    assert loose.within(at_the_limit)
    assert not clear.within(at_the_limit)
    assert "with a standard error of" in clear.excess(at_the_limit)


def test_where_no_plan_is_clear_of_the_limit_one_comes_up_to_it(shrink, monkeypatch):
    monkeypatch.setattr(DecisionAgreement, "standard_error", lambda _: 1.0)
    plan = shrink(metric="agreement", max_drop=0.03).plan
    assert any(site.chosen for site in plan.sites)
    assert plan.metric.probe_original - plan.metric.probe <= 0.03
    assert plan.metric.drop <= 0.03


class Remembered:
    """Four plans of one option each, from the cheapest on; two turn out worse than they add up."""

    predictions = (0.0465, 0.0453, 0.0395, 0.0336)
    errors = (0.094, 0.05005, 0.0774, 0.0336)
    learnt = (0, 2)

    def __init__(self):
        self.planning, self.seen = self, []
        self.now = dict(enumerate(self.predictions))

    def choose(self, capacity):
        found = [k for k, error in self.now.items() if error**2 <= capacity]
        return (found[0],) if found else (None,)

    def predicted(self, chosen):
        return self.now[chosen[0]]

    def value(self, chosen):
        return chosen[0]

    def of(self, chosen):
        self.seen.append(chosen[0])
        return Trial(chosen, Measured(self.errors[chosen[0]]), self.now[chosen[0]])

    def tried(self, chosen):
        return chosen[0] in self.seen

    def reprobe(self, trial):
        (k,) = trial.chosen
        self.now[k] = self.errors[k] if k in self.learnt else self.now[k]

    def over(self):
        return False


def test_a_plan_that_missed_before_is_no_reason_to_give_up():
    trials = Remembered()
    best = within_error(trials, 0.05)
    # After three that missed, the second is asked for again, and then for less than it.
    assert best is not None
    assert best.chosen == (3,)
    assert trials.seen == [0, 1, 2, 1, 3]


def test_a_plan_that_never_passes_is_not_kept(shrink, mlp):
    # Channels that are dead can go without any error, so only ranks are on offer.
    metric = closeness(mlp[0], parts(mlp)[2], 1e9)
    report = shrink(metric=metric, max_drop=0.1, passes="factor-matmul")
    assert report.plan.final_error is None
    assert not any(entry.option for entry in report.applied)
    assert "drop" in report.plan.unmet
    text = " ".join(str(report).split())
    assert "within 0.1 met by changing nothing lossy: metric drop" in text
    assert any(site.why.startswith("undone: ") for site in report.plan.sites)
    assert not any(site.chosen for site in report.plan.sites)


def test_a_metric_that_fails_on_a_candidate_only_rejects_it(shrink, mlp):
    original = Session(mlp[0])

    def picky(run, samples):
        if not np.array_equal(run(samples[0])["logits"], original.run(samples[0])["logits"]):
            raise ValueError("not the original")
        return 1.0

    report = shrink(metric=picky, max_drop=0.5, passes="factor-matmul")
    assert not any(entry.option for entry in report.applied)


def fails(run, samples):
    raise KeyError("label")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (fails, "fails: failed on the original: KeyError: 'label'"),
        (lambda run, samples: math.nan, "returned nan for the original; it must return a finite"),
        (lambda run, samples: -math.inf, "returned -inf for the original"),
        (lambda run, samples: "0.9", "failed on the original: TypeError: returned text"),
        (lambda run, samples: None, "failed on the original: TypeError"),
        (lambda run, samples: run({}), "failed on the original: DataError"),
        (lambda run: 1.0, "failed on the original: TypeError"),
        ("agreement:probs", "no output named 'probs'; the model has logits"),
        ("no_such_module_here:f", "no module named no_such_module_here"),
        ("accuracy", "metric is agreement, agreement:OUTPUT, module:function or file.py:function"),
    ],
)
def test_a_metric_that_is_wrong_is_a_usage_error(shrink, metric, said):
    with pytest.raises(so.UsageError) as caught:
        shrink(metric=metric, max_drop=0.1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"max_drop": 0.1}, "max_drop needs metric"),
        ({"metric": "agreement"}, "metric needs max_drop"),
        ({"metric": "agreement", "max_drop": -0.1}, "max_drop is a number from 0 up"),
        ({"metric": "agreement", "max_drop": math.nan}, "max_drop is a number from 0 up"),
        ({"metric": 3, "max_drop": 0.1}, "metric is a function or its name, not 3"),
        ({"keep": "parameters=0"}, "keep is a share over 0 and at most 1"),
        ({"keep": "parameters=1.5"}, "keep is a share over 0 and at most 1"),
        ({"keep": {"parameters": math.nan}}, "keep is a share over 0 and at most 1"),
        ({"keep": "params=0.5"}, "keep names one of time, bytes, macs, parameters, not 'params'"),
        ({"keep": "parameters"}, "keep is one cost and its share"),
        ({"keep": {"macs": 0.5, "time": 0.5}}, "keep is one cost and its share"),
        ({"keep": 0.5}, "keep is one cost and its share"),
        ({"keep": "macs=0.5", "minimize": "bytes"}, "keep says that macs must fall"),
    ],
)
def test_budgets_that_make_no_sense_are_usage_errors(shrink, budgets, said):
    with pytest.raises(so.UsageError, match=said):
        shrink(**budgets)


@pytest.mark.parametrize("keep", ["parameters=0.3", {"macs": 0.4}, "bytes=0.25", "time=0.7"])
def test_a_model_comes_down_to_a_cost(shrink, keep):
    report = shrink(keep=keep)
    found = report.plan.keep
    before, after = report.before.cost.of(found.objective), report.after.cost.of(found.objective)
    assert found.reached == pytest.approx(after / before)
    assert 0.7 * found.share < found.reached <= found.share
    assert 0 < report.plan.final_error < 0.1
    text = " ".join(str(report).split())
    what = {"parameters": "parameters", "macs": "MACs", "bytes": "weights' bytes"}
    named = what.get(found.objective, "predicted time")
    assert f"{found.reached:.1%} of the original's {named} left" in text
    assert "(no error limit was set), measured on the final part (72 samples" in text


def test_less_cost_is_more_error(shrink):
    found = [shrink(keep={"parameters": share}).plan.final_error for share in (0.4, 0.2, 0.13)]
    assert found == sorted(found)


def test_a_cost_out_of_reach_keeps_the_model_whole(shrink):
    report = shrink(keep="parameters=0.01")
    assert not any(entry.option for entry in report.applied)
    assert report.validation.passed
    text = " ".join(str(report).split())
    assert "keep parameters=0.01: nothing lossy kept, the options on offer come down to" in text
    assert "no calibration data" not in text


def test_a_share_out_of_reach_without_data_asks_for_data(models, tmp_path):
    said = r"come down to parameters=1; no calibration data was given: give --calibration; nothing"
    with pytest.raises(so.ValidationFailed, match=said):
        so.optimize(models / "digits_mlp.onnx", tmp_path / "out.onnx", keep="parameters=0.5")
    assert list(tmp_path.iterdir()) == []


def test_a_share_out_of_reach_leaves_the_file_alone(shrink, tmp_path):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(so.ValidationFailed, match=r"keep parameters=0.01 not reached: the options"):
        shrink(out, keep="parameters=0.01")
    with pytest.raises(so.ValidationFailed, match=r"keep parameters=0.3 not reached: error"):
        shrink(out, keep="parameters=0.3", max_error=0.001)
    assert out.read_bytes() == b"of an earlier run"
    shrink(out, keep="parameters=1")
    assert so.validate(out, out).passed


def test_a_cost_within_reach_of_exact_rewrites_is_no_reason_for_others(shrink):
    report = shrink(keep="parameters=1")
    assert not any(entry.option for entry in report.applied)
    assert "exact rewrites alone come down to it" in " ".join(str(report).split())


def test_an_error_is_a_hard_limit_beside_a_cost(shrink):
    held = shrink(keep="parameters=0.3", max_error=0.05)
    assert 0 < held.plan.final_error <= 0.05
    missed = shrink(keep="parameters=0.3", max_error=0.001)
    assert not any(entry.option for entry in missed.applied)
    text = " ".join(str(missed).split())
    assert "is over the limit 0.001 on the probe part" in text


def test_a_metric_is_a_hard_limit_beside_a_cost(shrink, mlp):
    metric = closeness(mlp[0], parts(mlp)[2], 1e9)
    report = shrink(keep="parameters=0.3", metric=metric, max_drop=0.05)
    assert not any(entry.option for entry in report.applied)
    assert report.plan.final_evaluations == 1
    assert "over the limit 0.05 on the final part" in " ".join(str(report).split())


def test_bisect_asks_for_a_limit_where_the_run_had_none(mlp, tmp_path):
    out = tmp_path / "out.onnx"
    so.optimize(mlp[0], out, calibration=mlp[1], benchmark=False, keep="parameters=0.3")
    with pytest.raises(so.UsageError, match="made without a limit on the error"):
        so.bisect(mlp[0], out, calibration=mlp[1])
    found = so.bisect(mlp[0], out, calibration=mlp[1], max_error=0.001)
    assert found.culprit is not None
    assert found.culprit.step == "factor-matmul"


def test_a_metric_gets_samples_as_they_were_given():
    """Padding is cut off what errors are told by, not off what a metric may join."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n,s] x) => (float[n] y) <int64[1] one = {1}> { y = ReduceSum<keepdims=0>(x, one) }"""
    rows = (np.arange(12) <= np.arange(40)[:, None] % 10).astype(np.float32)
    lengths = []

    def metric(run, samples):
        lengths.append({feeds["x"].shape[1] for feeds in samples})
        return float(run({"x": np.concatenate([feeds["x"] for feeds in samples])})["y"].sum())

    options = OptimizeOptions(metric=metric, max_drop=0.1, benchmark=False)
    bench = prepare(onnx.parser.parse_model(text), options, {"x": rows}, lambda _: None)
    _, probe, _ = bench.samples.split()
    assert {feeds["x"].shape[1] for feeds in probe} != {12}
    assert Judge(bench, probe).measure(bench.model).drop == 0
    assert lengths == [{12}, {12}]
