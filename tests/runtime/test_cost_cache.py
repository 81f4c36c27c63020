from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from structopt_onnx.runtime import cost_cache
from structopt_onnx.runtime.cost_cache import CostCache, cache_folder


def test_what_was_put_is_there_in_the_next_run(tmp_path):
    cache = CostCache(folder=tmp_path / "deep")
    assert cache.get("MatMul") is None
    cache.put("MatMul", 1e-4)
    cache.save()
    assert CostCache(folder=tmp_path / "deep").get("MatMul") == 1e-4
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["region_times.json"]


def test_other_threads_are_another_environment(tmp_path):
    cache = CostCache(1, tmp_path)
    cache.put("MatMul", 1e-4)
    cache.save()
    other = CostCache(2, tmp_path)
    assert other.get("MatMul") is None
    other.put("MatMul", 2e-4)
    other.save()
    assert CostCache(1, tmp_path).get("MatMul") == 1e-4


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path):
    one, other = CostCache(folder=tmp_path), CostCache(folder=tmp_path)
    one.put("a", 1.0)
    one.save()
    other.put("b", 2.0)
    other.save()
    both = CostCache(folder=tmp_path)
    assert (both.get("a"), both.get("b")) == (1.0, 2.0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 0, "times": {}}', '{"version": 1}', "\x00\x01",
     '{"version": 1, "times": {"x": 3}}', '{"version": 1, "times": []}'],
)  # fmt: skip
def test_a_damaged_file_counts_as_empty_and_is_written_anew(tmp_path, text):
    file = tmp_path / "region_times.json"
    file.write_bytes(text.encode() + b"\xff" * (text == "\x00\x01"))
    cache = CostCache(folder=tmp_path)
    assert cache.get("a") is None
    cache.put("a", 1.0)
    cache.save()
    assert CostCache(folder=tmp_path).get("a") == 1.0


@pytest.mark.parametrize("value", ["NaN", "-1", "0", "Infinity", '"fast"', "null"])
def test_times_that_cannot_be_are_not_believed(tmp_path, value):
    cache = CostCache(folder=tmp_path)
    text = f'{{"version": 1, "times": {{"{cache.environment}": {{"a": {value}, "b": 2}}}}}}'
    (tmp_path / "region_times.json").write_text(text)
    cache = CostCache(folder=tmp_path)
    assert cache.get("a") is None
    assert cache.get("b") == 2


def test_a_folder_that_cannot_be_written_costs_the_memory_only(tmp_path):
    (tmp_path / "file").write_text("")
    cache = CostCache(folder=tmp_path / "file")
    cache.put("a", 1.0)
    cache.save()
    assert cache.get("a") == 1.0


def test_the_oldest_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_cache, "_MOST_ENTRIES", 2)
    cache = CostCache(folder=tmp_path)
    for name in "abc":
        cache.put(name, 1.0)
    cache.save()
    (held,) = json.loads((tmp_path / "region_times.json").read_text())["times"].values()
    assert list(held) == ["b", "c"]


def test_the_folder_follows_the_system(monkeypatch):
    monkeypatch.setenv("STRUCTOPT_ONNX_CACHE", "own")
    assert cache_folder() == Path("own")
    monkeypatch.delenv("STRUCTOPT_ONNX_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert cache_folder() == Path("xdg/structopt-onnx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/structopt-onnx").expanduser()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "local")
    assert cache_folder() == Path("local/structopt-onnx")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("~/Library/Caches/structopt-onnx").expanduser()
