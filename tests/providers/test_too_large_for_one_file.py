"""Models that pass the 2 GB of one file, by a smaller limit: their copies have a data file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.model import encoding
from structopt_onnx.model.loading import load
from structopt_onnx.runtime.providers.fixed import data_files, fixed_copy

MODEL = Path(__file__).resolve().parents[2] / "models" / "digits_mlp.onnx"
FEED = {"x": np.zeros((3, 64), np.float32)}


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(encoding, "PROTOBUF_LIMIT", encoding.SIZE_MARGIN + 100_000)
    with pytest.raises(so.ModelError, match="more than the 2 GB of one file"):
        encoding.to_proto(load(MODEL))


def test_shapes_are_fixed_and_weights_stay_beside(tmp_path):
    path = tmp_path / "model.onnx"
    fixed_copy(load(MODEL), FEED, path)
    (data,) = data_files(path)
    assert path.stat().st_size < 10_000 < data.stat().st_size
    graph = onnx.load(path, load_external_data=False).graph
    for info, shape in ((graph.input[0], [3, 64]), (graph.output[0], [3, 10])):
        assert [dim.dim_value for dim in info.type.tensor_type.shape.dim] == shape
    onnx.checker.check_model(path, full_check=True)


def test_the_cpu_runs_and_times_the_copy():
    (row,) = so.compare_providers(MODEL, providers=["cpu"], seconds=1).rows
    assert row.status.text.startswith("executed")
    assert row.relative_error < 1e-6


def test_a_phone_gets_the_data_too(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("onnxruntime_perf_test", "onnx_test_runner"):
        (tools / name).touch()
    adb = tmp_path / "adb"
    adb.write_text(f"""#!{sys.executable}
import os, sys
if sys.argv[1] == "get-state":
    print("device")
if sys.argv[1] == "push" and sys.argv[3].endswith("/cases"):
    print(*sorted(os.listdir(sys.argv[2] + "/model")))
    sys.exit(1)
""")
    adb.chmod(adb.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (row,) = so.compare_providers(MODEL, providers=[f"nnapi={tools}"], seconds=1).rows
    first, *_ = row.status.reason.removeprefix("adb push: ").split()
    assert first.startswith("0.")
    assert first.endswith(".data")
    assert "model.onnx" in row.status.reason


def test_the_web_takes_one_file_only(tmp_path):
    (row,) = so.compare_providers(MODEL, providers=[f"xnnpack={tmp_path}"], seconds=1).rows
    assert row.status.reason == "over 2 GB, more than one file without external data can hold"


def test_the_format_for_apps_is_one_file_and_that_is_told_with_a_way_out(tmp_path):
    with pytest.raises(so.ModelError) as caught:
        so.bundle(MODEL, tmp_path / "app")
    said = str(caught.value)
    assert said.startswith(f"{MODEL}: takes 34")
    assert "more than the 2 GB of one file, which onnxruntime's format for apps is" in said
    assert "optimize it to fewer bytes" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [onnx.load, load])
def test_a_model_in_memory_that_no_session_could_open_is_told(read):
    with pytest.raises(so.ModelError, match=r"takes 34\d+ bytes.*save it with external data"):
        so.compare_providers(read(MODEL), providers=["cpu"])
