from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.api.bench import prepare
from structopt_onnx.api.replay import RECORD_KEY, Replay, decode, replay
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import catalogue
from structopt_onnx.rewriting.pipeline import pipeline_text

BUDGET = 0.05
WRONG = "remove-identities,share-initializers,saturate"


@pytest.fixture(scope="module")
def lossy(padded, calibration, tmp_path_factory):
    """Exact and lossy rewrites in one file."""
    out = tmp_path_factory.mktemp("lossy") / "out.onnx"
    result = so.optimize(
        padded, out, max_error=BUDGET, refit=False, calibration=calibration, benchmark=False
    )
    options = [entry.option for entry in result.report.applied]
    assert None in options
    assert len([option for option in options if option]) == 2
    return out


@pytest.fixture(scope="module")
def recovered(padded, calibration, tmp_path_factory):
    """The same with a factor that was fitted anew."""
    out = tmp_path_factory.mktemp("recovered") / "out.onnx"
    result = so.optimize(padded, out, max_error=BUDGET, calibration=calibration, benchmark=False)
    steps = [entry.step for entry in result.report.applied if entry.option]
    assert steps == ["factor-matmul", "factor-matmul", "refit", "refit"]
    return out


def record_of(path):
    return decode(load(path).metadata_props[RECORD_KEY])


def bench_of(source, record, calibration):
    return prepare(source, record.run_options(), calibration, lambda _: None)


def test_a_planted_patch_is_named(saturate, padded, rows, tmp_path):
    # Its limit is beyond what the calibration data reach, so optimizing did not notice.
    out = tmp_path / "out.onnx"
    report = so.optimize(padded, out, passes=WRONG, calibration={"x": rows}, benchmark=False).report
    assert report.rolled_back == ()
    large = {"x": rows[:8] * np.float32(1e5)}
    assert not so.validate(padded, out, data=large).passed
    found = so.bisect(padded, out, data=large)
    assert found.culprit == next(a for a in report.applied if a.step == "saturate")
    assert found.culprit.title == "node_relu ends at 10000"
    assert found.patches == len(report.applied)
    assert found.evaluations <= 5
    assert found.error > 0.01
    assert "logits" in found.failure


def test_a_later_one_is_named_when_the_first_does_no_harm(saturate, padded, rows, tmp_path):
    out = tmp_path / "out.onnx"
    so.optimize(
        padded, out, passes=WRONG, calibration={"x": rows}, benchmark=False, skip=("node_relu",)
    )
    found = so.bisect(padded, out, data={"x": rows[:8] * np.float32(1e5)})
    assert found.culprit.title == "node_relu_1 ends at 10000"


def test_what_holds_has_no_culprit(saturate, padded, rows, tmp_path):
    out = tmp_path / "out.onnx"
    so.optimize(padded, out, passes=WRONG, calibration={"x": rows}, benchmark=False)
    found = so.bisect(padded, out)
    assert (found.culprit, found.failure, found.evaluations) == (None, None, 1)
    assert found.samples.synthetic
    assert found.max_error is None


def test_a_lossy_rewrite_is_named_with_its_option(lossy, padded, calibration):
    kept = so.bisect(padded, lossy, calibration=calibration)
    assert kept.culprit is None
    assert kept.max_error == BUDGET
    assert 0 < kept.error <= BUDGET
    assert kept.samples.count == 72
    errors = []
    record = record_of(lossy)
    for number in range(len(record.lossy)):
        model = replay(
            bench_of(padded, record, calibration), record, record.exact_count + number + 1
        )
        judged = so.validate(padded, model, data=calibration, max_error=1, drift=False)
        errors.append(judged.validation.exact.error)
    # A limit between two of them: the patch that crosses it is to blame.
    limit = (errors[0] + errors[1]) / 2
    found = so.bisect(padded, lossy, calibration=calibration, data=calibration, max_error=limit)
    assert found.culprit.number == record.exact_count + 2
    assert found.culprit.option == record.lossy[1].option
    assert found.culprit.site == record.lossy[1].site


@pytest.mark.parametrize("made", ["lossy", "recovered"])
def test_a_replay_of_everything_is_the_file(made, request, padded, calibration):
    out = request.getfixturevalue(made)
    record = record_of(out)
    model, applied = Replay(bench_of(padded, record, calibration), record).run(record.count)
    assert len(applied) == record.count
    model.metadata_props[RECORD_KEY] = load(out).metadata_props[RECORD_KEY]
    assert to_proto(model).SerializeToString(deterministic=True) == out.read_bytes()


def test_lossy_rewrites_without_the_exact_ones_are_replayed(
    delivering, monkeypatch, padded, calibration, tmp_path
):
    real, calls = delivering.validate_models, []

    def validate(*arguments, **options):
        calls.append(options)
        verdict = real(*arguments, **options)
        return replace(verdict, interface=("planted",)) if len(calls) <= 2 else verdict

    monkeypatch.setattr(delivering, "validate_models", validate)
    out = tmp_path / "out.onnx"
    report = so.optimize(
        padded, out, max_error=BUDGET, calibration=calibration, benchmark=False
    ).report
    assert all(entry.option for entry in report.applied)
    record = record_of(out)
    assert record.fitted_after > record.exact_count == 0
    model = replay(bench_of(padded, record, calibration), record, record.count)
    model.metadata_props[RECORD_KEY] = load(out).metadata_props[RECORD_KEY]
    assert to_proto(model).SerializeToString(deterministic=True) == out.read_bytes()
    found = so.bisect(padded, out, calibration=calibration, max_error=1e-6)
    assert found.culprit == report.applied[0]


def test_a_replay_of_a_part_has_that_many_patches(recovered, padded, calibration):
    record = record_of(recovered)
    again = Replay(bench_of(padded, record, calibration), record)
    whole = again.run(record.count)[1]
    for count in range(record.count + 1):
        model, applied = again.run(count)
        assert applied == whole[:count]
        assert so.validate(padded, model, data=calibration, max_error=BUDGET).passed


def test_a_replay_of_nothing_is_the_source(lossy, padded, calibration):
    record = record_of(lossy)
    model = replay(bench_of(padded, record, calibration), record, 0)
    assert [n.name for n in model.graph] == [n.name for n in load(padded).graph]


def test_data_that_lossy_rewrites_were_fitted_to_is_asked_for(lossy, padded, calibration, models):
    with pytest.raises(so.UsageError, match=rf"fitted to {calibration.name} \(359 samples, 215 "):
        so.bisect(padded, lossy)
    other = models / "digits_mlp_test.npz"
    with pytest.raises(
        so.DataError, match=rf"{other.name}: is not what .* made with, {calibration.name}"
    ):
        so.bisect(padded, lossy, calibration=other)


def test_made_up_data_are_made_up_again(models, tmp_path):
    source, out = models / "digits_mlp.onnx", tmp_path / "out.onnx"
    so.optimize(source, out, max_error=0.8, allow_synthetic=True, seed=5, benchmark=False)
    found = so.bisect(source, out, max_error=1e-6)
    assert found.culprit.number == 1
    assert found.culprit.option is not None


def test_a_model_without_a_record_is_refused(models, padded, tmp_path):
    with pytest.raises(so.UsageError, match=r"padded\.onnx: carries no record .* by optimize"):
        so.bisect(models / "digits_mlp.onnx", padded)
    out = tmp_path / "out.onnx"
    so.optimize(models / "digits_mlp.onnx", out, passes="normalize", benchmark=False)
    with pytest.raises(so.UsageError, match="or nothing was applied"):
        so.bisect(models / "digits_mlp.onnx", out)


def test_a_record_leads_from_its_own_source_only(lossy, padded, calibration, models):
    with pytest.raises(so.UsageError, match=r"can't be applied to it again \(2 rewrites instead"):
        so.bisect(models / "digits_mlp.onnx", lossy, calibration=calibration, max_error=1e-9)


def test_a_file_changed_later_is_told_from_a_wrong_rewrite(padded, tmp_path):
    out = tmp_path / "out.onnx"
    so.optimize(padded, out, passes="remove-identities", benchmark=False)
    proto = onnx.load(out)
    bias = next(t for t in proto.graph.initializer if t.name == "4.bias")
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(1)).tobytes()
    onnx.save(proto, out)
    found = so.bisect(padded, out)
    assert found.culprit is None
    assert "logits" in found.failure
    assert found.error > 0.01


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema":1,"version":"0.1.0"}', "truncat", '{"schema":1}', "null"]
)
def test_a_damaged_record_is_no_traceback(text):
    with pytest.raises(so.UsageError, match=r"m\.onnx: its record of rewrites is damaged"):
        decode(text, "m.onnx")


def test_a_record_of_a_newer_version_is_named():
    text = json.dumps({"schema": 99, "version": "9.9.9", "new": True})
    with pytest.raises(so.UsageError, match=r"of version 9\.9\.9"):
        decode(text)


def test_a_record_is_one_short_line(lossy):
    text = load(lossy).metadata_props[RECORD_KEY]
    assert len(text) < 700
    assert "\n" not in text
    assert "/" not in text  # no paths of the machine
    record = decode(text)
    assert record.data.fit == 215
    assert record.options == {"max_error": BUDGET}


def test_the_whole_catalogue_is_not_spelled_out(lossy):
    record = record_of(lossy)
    assert record.pipeline is None
    assert record.run_options().steps() == so.OptimizeOptions(max_error=BUDGET).steps()


@pytest.mark.parametrize(
    "options",
    [
        {"minimize": "bytes"},
        {"sparse_format": "delta"},
        {"minimize": "bytes", "sparse_format": "none"},
        {"keep": "bytes=0.9", "max_error": 1.0, "allow_synthetic": True},
        {"passes": "remove-identities,share-initializers"},
        {"passes": "remove-identities,encode-sparse", "sparse_format": "bitmask"},
    ],
)
def test_a_replay_runs_the_steps_of_the_run(options, padded, tmp_path):
    out = tmp_path / "out.onnx"
    so.optimize(padded, out, benchmark=False, **options)
    record = record_of(out)
    assert (record.pipeline is None) == ("passes" not in options)
    assert record.run_options().steps() == so.OptimizeOptions(**options).steps()


def test_a_file_of_an_older_version_replays_by_its_text(lossy, padded, calibration, tmp_path):
    out = tmp_path / "old.onnx"
    proto = onnx.load(lossy)
    entry = next(entry for entry in proto.metadata_props if entry.key == RECORD_KEY)
    text = pipeline_text(so.OptimizeOptions(max_error=BUDGET).steps())
    entry.value = json.dumps(json.loads(entry.value) | {"schema": 1, "pipeline": text})
    onnx.save(proto, out)
    record = record_of(out)
    assert record.pipeline == text
    found = so.bisect(padded, out, calibration=calibration, max_error=1e-6)
    assert found.culprit.number == record.exact_count + 1


def test_another_catalogue_that_finds_others_is_refused(
    lossy, padded, calibration, saturate, monkeypatch
):
    known = catalogue()
    later, sooner = known | {saturate.name: saturate}, {saturate.name: saturate} | known
    monkeypatch.setattr("structopt_onnx.api.options.catalogue", lambda: later)
    assert so.bisect(padded, lossy, calibration=calibration, max_error=1e-6).culprit is not None
    monkeypatch.setattr("structopt_onnx.api.options.catalogue", lambda: sooner)
    with pytest.raises(so.UsageError, match=r"can't be applied .* and version 0\.1\.0 of"):
        so.bisect(padded, lossy, calibration=calibration, max_error=1e-6)


def test_an_optimized_model_can_be_optimized_again(lossy, padded, calibration, tmp_path):
    again = tmp_path / "again.onnx"
    shutil.copyfile(lossy, again)
    report = so.optimize(again, again, benchmark=False).report
    assert report.applied == ()
    assert record_of(again) == record_of(lossy)
    assert so.bisect(padded, again, calibration=calibration).culprit is None


def test_a_rolled_back_step_stays_out_of_the_replay(plant, saturate, padded, rows, tmp_path):
    out = tmp_path / "out.onnx"
    report = so.optimize(
        padded,
        out,
        passes="saturate{limit=0.01},remove-identities,share-initializers",
        calibration={"x": rows},
        benchmark=False,
    ).report
    assert len(report.rolled_back) == 1
    record = record_of(out)
    assert record.deny == ("saturate",)
    assert so.bisect(padded, out, max_error=0).culprit is None
    model = replay(bench_of(padded, record, {"x": rows}), record, record.count)
    assert not any(node.op_type == "Clip" for node in model.graph)
    assert replace(record, deny=()) != record
