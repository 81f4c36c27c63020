"""The benchmark's structure, its limits and its failures; never how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import ml_dtypes
import numpy as np
import onnx
import pytest

from structopt_onnx.errors import DataError, ModelError, UsageError
from structopt_onnx.runtime import benchmark as benchmark_module
from structopt_onnx.runtime import machine, process
from structopt_onnx.runtime.benchmark import BenchmarkSettings, benchmark
from structopt_onnx.runtime.exchange import read_feeds, write_feeds
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.measuring import Plan, measure
from structopt_onnx.runtime.options import SessionSettings

MLP = """
<ir_version: 9, opset_import: ["": 19]>
mlp (float[N, 3] x) => (float[N, 3] y) { h = Tanh(x)  y = Softmax(h) }
"""

FEEDS = [{"x": np.full((n, 3), 0.5, np.float32)} for n in (1, 2)]
SHORT = BenchmarkSettings(pairs=8, sample_ms=0.2)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "a.onnx"
    onnx.save(onnx.parser.parse_model(MLP), path)
    return path


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "b.onnx"
    onnx.save(onnx.parser.parse_model(MLP.replace("Tanh", "Sigmoid")), path)
    return path


def test_comparison_of_two_models(model, other):
    result = benchmark(model, other, FEEDS, BenchmarkSettings(pairs=9, sample_ms=0.2, threads=2))
    for timing, path in ((result.a, model), (result.b, other)):
        assert timing.minimum <= timing.p50 <= timing.p90
        assert timing.n == 8 * 9
        assert timing.session_creation_ms > 0
        assert timing.first_run_ms > 0
        assert timing.peak_rss_bytes > 1 << 20
        assert timing.file_bytes == path.stat().st_size
    assert result.verdict in {"faster", "slower", "no difference shown"}
    assert result.low <= result.ratio <= result.high
    assert result.control_spread == pytest.approx(abs(np.log(result.control_ratio)))
    assert (result.replicates, result.pairs, result.feeds) == (8, 9, 2)
    assert result.clock in {"thread CPU time", "wall"}
    assert result.deployed.threads == 2
    assert result.deployed.ratio > 0
    assert result.machine == machine.current()
    assert json.loads(json.dumps(asdict(result)))["verdict"] == result.verdict
    assert result.summary().startswith(f"{result.verdict}: x")
    assert "\n" not in result.summary()


def test_one_model_by_itself(model):
    result = benchmark(model, None, FEEDS, SHORT)
    assert result.b is None
    assert (result.verdict, result.ratio, result.reason) == ("not measured", None, "")
    assert result.control_ratio > 0
    assert result.deployed.p50_b is None
    assert result.summary().startswith("p50 ")


def test_too_little_time_is_not_measured_but_what_ran_is_told(model, other):
    result = benchmark(model, other, FEEDS, BenchmarkSettings(seconds=0.01))
    assert result.verdict == "not measured"
    assert "8 replicates need about" in result.reason
    assert result.reason.endswith(" s, 0 s were left")
    assert result.needed_seconds >= 1
    assert result.ratio is None
    assert result.b.p50 > 0
    assert result.b.session_creation_ms > 0
    assert result.summary().startswith("not measured (8 replicates")


def fake_probe(creation_ms=1.0, run_ms=1.0, memory=1 << 20):
    times = {"cpu_ms": [run_ms] * 5, "wall_ms": [run_ms] * 5}
    return times | {
        "creation_ms": creation_ms,
        "first_run_ms": run_ms,
        "peak_rss_bytes": memory,
    }


def fake_samples(ratio, replicates=8):
    rows = [[[1.0] * 8, [ratio] * 8, [1.0] * 8]] * replicates
    slots = [[1.0, 1.0, 1.0]] * replicates
    return {
        "verdict": {
            "cpu_ms": rows,
            "wall_ms": rows,
            "creation_ms": slots,
            "first_run_ms": slots,
            "too_slow": "",
            "needed_s": 0.0,
        }
    }


@pytest.fixture
def jobs(monkeypatch):
    """Answers instead of processes; collects what was asked."""

    def answer_with(probe, samples=None):
        asked = []

        def run_job(job, timeout, what, packages):
            asked.append(job)
            return probe if job["kind"] == "probe" else samples

        monkeypatch.setattr(benchmark_module, "run_job", run_job)
        return asked

    return answer_with


def test_verdict_comes_from_the_samples(jobs, model, other):
    jobs(fake_probe(), fake_samples(1.25))
    result = benchmark(model, other, FEEDS)
    assert (result.verdict, result.ratio) == ("slower", pytest.approx(1.25))
    assert (result.control, result.control_spread) == ("fresh session", 0)


@pytest.mark.parametrize(
    ("creation_ms", "control"), [(10, "fresh session"), (800, "previous session")]
)
def test_control_is_what_the_time_allows(jobs, model, other, creation_ms, control):
    asked = jobs(fake_probe(creation_ms), fake_samples(1.0))
    benchmark(model, other, FEEDS, BenchmarkSettings(seconds=20))
    assert asked[-1]["control"] == control


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (fake_probe(creation_ms=3000), "8 replicates need about 49 s"),
        (fake_probe(run_ms=500), "8 replicates need about"),
        (fake_probe(memory=1 << 60), "MiB of memory"),
        (None, "did not load and run once in time"),
    ],
)
def test_what_can_not_be_measured_is_not_started(jobs, model, other, probe, reason):
    asked = jobs(probe)
    result = benchmark(model, other, FEEDS)
    assert [job["kind"] for job in asked] == ["probe", "probe"]
    assert result.verdict == "not measured"
    assert reason in result.reason
    assert (result.a.p50 is None) == (probe is None)
    assert (result.needed_seconds is None) == ("8 replicates" not in reason)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_said_to_be_enough_is_enough(jobs, model, other, threads):
    samples = fake_samples(1.0)
    asked = jobs(fake_probe(creation_ms=3000), samples | {"deployed": samples["verdict"]})
    short = benchmark(model, other, FEEDS, BenchmarkSettings(threads=threads))
    assert short.verdict == "not measured"
    assert short.needed_seconds < 100
    settings = BenchmarkSettings(seconds=short.needed_seconds, threads=threads)
    long = benchmark(model, other, FEEDS, settings)
    assert asked[-1]["kind"] == "compare"
    assert (long.verdict, long.needed_seconds) == ("no difference shown", None)


def test_a_verdict_stands_without_time_for_the_deployment(jobs, model, other):
    samples = fake_samples(1.25)
    late = {**samples["verdict"], "too_slow": "too short", "wall_ms": []}
    jobs(fake_probe(), samples | {"deployed": late})
    result = benchmark(model, other, FEEDS, BenchmarkSettings(threads=2))
    assert (result.verdict, result.deployed) == ("slower", None)


def test_long_times_are_written_without_an_exponent(jobs, model, other):
    jobs(fake_probe(run_ms=2094.3), None)
    result = benchmark(model, other, FEEDS)
    assert result.summary().endswith("p50 2,090 ms -> 2,090 ms")
    assert str(result) == result.summary()


def test_the_inputs_are_described(jobs, model, other):
    jobs(fake_probe(), fake_samples(1.0))
    assert benchmark(model, other, FEEDS).shapes == ("x float32[1,3]",)


def test_a_comparison_that_never_ends_is_not_measured(jobs, model, other):
    jobs(fake_probe(), samples=None)
    result = benchmark(model, other, FEEDS)
    assert (result.verdict, result.reason[:15]) == ("not measured", "no result after")


def test_broken_model_is_named(model, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx: onnxruntime can't load it"):
        benchmark(model, broken, FEEDS, SHORT)


def test_feeds_that_do_not_fit_name_the_model(model):
    with pytest.raises(ModelError, match=r"a\.onnx: onnxruntime can't run it: .*x"):
        benchmark(model, None, [{"x": np.zeros((1, 3))}], SHORT)


def test_missing_file_and_missing_feeds_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx: no such model file"):
        benchmark(model, tmp_path / "none.onnx", FEEDS)
    with pytest.raises(DataError, match="give at least one feed"):
        benchmark(model, None, [])


def test_wrong_library_is_a_usage_error(model, tmp_path):
    settings = BenchmarkSettings(libraries=(tmp_path / "custom.so",))
    with pytest.raises(UsageError, match=r"custom\.so"):
        benchmark(model, None, FEEDS, settings)


@pytest.mark.parametrize(
    "fields", [{"replicates": 7}, {"pairs": 7}, {"threads": 0}, {"seconds": 0}, {"sample_ms": -1}]
)
def test_settings_that_prove_nothing_are_refused(fields):
    with pytest.raises(UsageError, match=f"^{next(iter(fields))} must be "):
        BenchmarkSettings(**fields)


def run_instead(monkeypatch, tmp_path, source):
    (tmp_path / "stand_in.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "_MODULE", "stand_in")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"SIGKILL \(out of memory\?\)"),
        ("raise SystemExit('no space left')", "no space left"),
        ("raise SystemExit(0)", "exit code 0"),
    ],
)
def test_death_of_the_process_is_one_clear_line(monkeypatch, tmp_path, source, cause):
    run_instead(monkeypatch, tmp_path, source)
    with pytest.raises(ModelError, match=f"^m.onnx: the measuring process died: {cause}$"):
        process.run_job({}, 30, "m.onnx")


def test_a_process_that_hangs_is_killed(monkeypatch, tmp_path):
    run_instead(monkeypatch, tmp_path, "import time; time.sleep(60)")
    assert process.run_job({}, 0.5, "m.onnx") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_the_process_ends_with_its_caller(tmp_path):
    job = tmp_path / "job.json"
    os.mkfifo(job)  # nobody writes to it, so the job never comes
    command = [sys.executable, "-m", process._MODULE, str(job), str(tmp_path / "result.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(0.5)
            worker.stdin.close()
            assert worker.wait(20) == 1
        finally:
            worker.kill()


def test_kept_control_is_missing_only_in_the_first_replicate(model):
    plan = Plan(replicates=8, pairs=8, min_pairs=8, sample_ms=0.01, seconds=20, seed=0)
    feeds = [{"x": (FEEDS[0]["x"], None)}]
    samples = measure([model, model], feeds, SessionSettings(), plan, "previous session")
    assert samples.too_slow == ""
    assert [len(arms) for arms in samples.cpu_ms] == [2] + [3] * 7
    assert all(len(times) == 8 for arms in samples.wall_ms for times in arms)


def test_time_that_does_not_suffice_is_said(model):
    plan = Plan(replicates=8, pairs=8, min_pairs=8, sample_ms=50, seconds=1, seed=0)
    feeds = [{"x": (FEEDS[0]["x"], None)}]
    samples = measure([model], feeds, SessionSettings(), plan, "none")
    assert samples.too_slow.startswith("8 replicates need about")
    assert samples.cpu_ms == []
    assert samples.needed_s > 1


def test_time_that_was_over_before_the_start_is_none_left(model):
    plan = Plan(replicates=8, pairs=8, min_pairs=8, sample_ms=50, seconds=-1, seed=0)
    samples = measure([model], [{"x": (FEEDS[0]["x"], None)}], SessionSettings(), plan, "none")
    assert samples.too_slow.endswith(" s, 0 s were left")


def test_models_with_strings_sequences_and_small_floats_are_measured(tmp_path):
    path = tmp_path / "mixed.onnx"
    text = """
    <ir_version: 9, opset_import: ["": 19]>
    {name} ({inputs}) => ({outputs}) {{ {nodes} }}
    """
    sequence = text.format(
        name="strings",
        inputs="string[N] s, float[N] x",
        outputs="string[N] t, seq(float[N]) q",
        nodes="t = Identity(s)  q = SequenceConstruct(x, x)",
    )
    floats = text.format(
        name="floats", inputs="bfloat16[N] x", outputs="bfloat16[N] y", nodes="y = Identity(x)"
    )
    for source, feed in (
        (sequence, {"s": np.array(["a", "b"], dtype=object), "x": np.ones(2, np.float32)}),
        (floats, {"x": np.ones(2, ml_dtypes.bfloat16)}),
    ):
        onnx.save(onnx.parser.parse_model(source), path)
        assert benchmark(path, None, [feed], SHORT).a.p50 > 0


def test_feeds_survive_the_way_to_the_process(tmp_path):
    feeds = [
        {"x/y": np.arange(3), "s": np.array(["a", "ö"], dtype=object)},
        {"b": np.array([1.5], ml_dtypes.bfloat16), "e": np.zeros((0, 2), np.float16)},
    ]
    index = json.loads(json.dumps(write_feeds(tmp_path / "feeds.npz", feeds)))
    first, second = read_feeds(tmp_path / "feeds.npz", index)
    assert first["x/y"][0].tolist() == [0, 1, 2]
    assert first["s"][0].tolist() == ["a", "ö"]
    assert second["b"][1] == onnx.TensorProto.BFLOAT16
    assert second["b"][0].view(ml_dtypes.bfloat16).tolist() == [1.5]
    assert second["e"][0].shape == (0, 2)


def test_external_data_counts_once(tmp_path):
    proto = onnx.parser.parse_model(MLP.replace("Tanh(x)", "Add(x, w)"))
    weight = np.zeros((100, 3), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "large.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert model_file_bytes(path) == path.stat().st_size + weight.nbytes
