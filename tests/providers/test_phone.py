"""What is asked of adb, and what is made of its answers: by a fake one that notes its words."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys

import numpy as np
import onnx
import pytest

import structopt_onnx as so

_AT = "[V:onnxruntime:, session_state.cc:1150 VerifyEachNodeIsAssignedToAnEp]"

# The fake phone keeps what is pushed in a folder, and writes times where they are asked for.
_FAKE = """#!{python}
import json, os, pathlib, re, shutil, sys
here = pathlib.Path({here!r})
words = sys.argv[1:]
with open(here / "words.jsonl", "a") as file:
    file.write(json.dumps(words) + "\\n")
how = (here / "how").read_text()
if words[0] == "get-state":
    print("offline" if how == "offline" else "device")
elif words[0] == "push" and words[2].endswith("/cases"):
    shutil.copytree(words[1], here / "pushed")
elif words[0] == "logcat" and words[1] == "-c":
    (here / "earlier").write_text("")
elif words[0] == "logcat" and words[1] == "-d":
    since = words[words.index("-T") + 1] if "-T" in words else ""
    print("" if since == "1700000000.000" else (here / "earlier").read_text())
    print((here / "log").read_text())
elif words[0] == "pull":
    pathlib.Path(words[2]).write_text((here / "times.csv").read_text())
elif words[0] == "shell" and "onnx_test_runner" in words[1] and "chmod" not in words[1]:
    if how == "wrong":
        print("model: expected 1.5, got 2.5")
        print("Models: 1 Total test cases: 1 Succeeded: 0")
        sys.exit(1)
elif words == ["shell", "date +%s"]:
    print("1700000000")
elif words[0] == "shell" and "getprop" in words[1]:
    print("Pixel 8")
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A phone on which nnapi takes 4 of 5 nodes."""
    here = tmp_path / "phone"
    here.mkdir()
    program = here / "adb"
    program.write_text(_FAKE.format(python=sys.executable, here=str(here)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    (here / "how").write_text("")
    (here / "times.csv").write_text("model,0.002,1,2,0\nmodel,0.004,1,2,1\nmodel,0.003,1,2,2\n")
    (here / "earlier").write_text(
        f"{_AT}  All nodes placed on [CPUExecutionProvider]. Number of nodes: 9\n"
    )
    (here / "log").write_text(
        f"{_AT}  Node(s) placed on [NnapiExecutionProvider]. Number of nodes: 4\n"
        + "".join(f"{_AT}   {op} ({op})\n" for op in ("Conv", "Relu", "Flatten", "MatMul"))
        + f"{_AT}  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1\n"
        + f"{_AT}   GlobalAveragePool (p)\n"
    )
    return here


@pytest.fixture
def tools(tmp_path):
    """A folder with an Android build's tools."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("onnxruntime_perf_test", "onnx_test_runner", "libonnxruntime.so"):
        (folder / name).touch()
    return folder


FEED = [{"x": np.random.default_rng(5).standard_normal((1, 3, 8, 8)).astype(np.float32)}]


def row_of(model, name, tools):
    table = so.compare_providers(model, providers=[f"{name}={tools}"], data=FEED, seconds=1)
    return table.rows[0]


def words_to(phone):
    return [json.loads(line) for line in (phone / "words.jsonl").read_text().splitlines()]


def test_values_are_compared_and_runs_timed_on_the_phone(phone, tools, free_batch):
    row = row_of(free_batch, "nnapi", tools)
    assert row.status.text == "partial (4 of 5 nodes)"
    assert row.engine == "Pixel 8, by adb"
    assert dict(row.left) == {"GlobalAveragePool": 1}
    assert (row.minimum_ms, row.p50_ms, row.runs) == pytest.approx((2.0, 3.0, 3))


def test_the_words_to_adb(phone, tools, free_batch):
    row_of(free_batch, "nnapi", tools)
    words = words_to(phone)
    remote = words[1][1].removeprefix("mkdir -p ")
    assert remote.startswith("/data/local/tmp/structopt-onnx-")
    assert [line[0] for line in words] == [
        "get-state", "shell", "push", "push", "shell", "shell", "shell", "shell", "logcat",
        "pull", "shell", "shell",
    ]  # fmt: skip
    assert words[2][1:] == [f"{tools}/.", f"{remote}/tools"]
    # The log since then, by the phone's own clock; what it held before is not erased.
    assert words[6][1:] == ["date +%s"]
    assert words[8][1:] == ["-d", "-T", "1700000000.000"]
    place = f"cd {remote}/tools && LD_LIBRARY_PATH={remote}/tools ADSP_LIBRARY_PATH={remote}/tools "
    compare, time = (line[1].removeprefix(place) for line in (words[5], words[7]))
    # Absolute errors are allowed in proportion to the largest output.
    data = phone / "pushed" / "model" / "test_data_set_0"
    largest = np.abs(onnx.numpy_helper.to_array(onnx.load_tensor(data / "output_0.pb"))).max()
    assert compare == (
        f"./onnx_test_runner -e nnapi -j 1 -c 1 -t 0.02 -a {0.02 * float(largest):g} {remote}/cases"
    )
    assert time == (
        "./onnxruntime_perf_test -e nnapi -m times -r 50 -v "
        f"{remote}/cases/model/model.onnx {remote}/times.csv"
    )
    # Nothing stays on the phone.
    assert ["shell", f"rm -rf {remote}"] in words


def test_the_log_of_earlier_runs_is_neither_counted_nor_erased(phone, tools, free_batch):
    before = (phone / "earlier").read_text()
    row = row_of(free_batch, "nnapi", tools)
    assert (row.status.text, dict(row.left)) == (
        "partial (4 of 5 nodes)",
        {"GlobalAveragePool": 1},
    )
    assert (phone / "earlier").read_text() == before != ""


def test_the_case_that_is_pushed_is_the_model_with_its_values(phone, tools, free_batch):
    row_of(free_batch, "nnapi", tools)
    case = phone / "pushed" / "model"
    shape = onnx.load(case / "model.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 3, 8, 8]
    values = {
        kind: onnx.numpy_helper.to_array(
            onnx.load_tensor(case / "test_data_set_0" / f"{kind}_0.pb")
        )
        for kind in ("input", "output")
    }
    assert np.array_equal(values["input"], FEED[0]["x"])
    assert values["output"].shape == (1, 4)


def test_qnn_names_its_backend(phone, tools, free_batch):
    row_of(free_batch, "qnn", tools)
    timed = next(w[1] for w in words_to(phone) if "perf_test -e" in w[-1])
    options = shlex.split(timed.partition("&&")[2])
    assert options[options.index("-i") + 1] == "backend_path|libQnnHtp.so"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("offline", "adb: the phone is offline"),
        ("wrong", "adb shell: Models: 1 Total test cases: 1 Succeeded: 0"),
    ],
)
def test_what_goes_wrong_there_is_the_reason(phone, tools, free_batch, how, reason):
    (phone / "how").write_text(how)
    row = row_of(free_batch, "nnapi", tools)
    assert (row.status.kind, row.status.reason) == ("unavailable", reason)
    assert row.p50_ms is None
    if how == "wrong":
        assert words_to(phone)[-1][1].startswith("rm -rf /data/local/tmp/structopt-onnx-")


def test_a_phone_that_runs_all_of_it_on_its_cpu_is_found_out(phone, tools, free_batch):
    (phone / "log").write_text(
        f"{_AT}  All nodes placed on [CPUExecutionProvider]. Number of nodes: 5\n"
    )
    row = row_of(free_batch, "nnapi", tools)
    assert row.status.text == "unavailable (it took none of 5 nodes)"
    assert (row.p50_ms, row.runs) == (None, 0)


def test_without_adb_or_a_tool_it_is_unavailable(phone, tools, free_batch, monkeypatch, tmp_path):
    (tools / "onnx_test_runner").unlink()
    row = row_of(free_batch, "nnapi", tools)
    assert row.status.reason == "onnx_test_runner is not in tools"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert row_of(free_batch, "nnapi", tools).status.reason == "adb is not installed"
