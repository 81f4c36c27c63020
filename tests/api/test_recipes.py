"""Recipes: what they may say, what is said of a wrong one, and that they reproduce a run."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import structopt_onnx as so
from structopt_onnx.api.keep import Keep
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.api.recipe import _KINDS, PRESETS, read_recipe, recipe_text
from structopt_onnx.report.json import to_json

MODELS = Path(__file__).resolve().parents[2] / "models"
KEYS = {field.name for field in fields(OptimizeOptions)} | {"calibration"}

# Any text but lone surrogates, which TOML does not have.
WORDS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.floats(0, allow_nan=False, allow_infinity=False)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "passes": st.sampled_from(["normalize", "factor-matmul{rank_multiple=16},encode-sparse"]),
        "max_error": NUMBERS,
        "refit": st.booleans(),
        "recover": st.booleans(),
        "recover_minutes": NUMBERS | st.integers(0, 99),
        "minimize": st.sampled_from(["time", "bytes", "macs", "parameters"]),
        "tolerate": NUMBERS,
        "sparse_format": st.sampled_from([None, "auto", "delta", "none"]),
        "target": st.sampled_from(["cpu", "qnn"]),
        "only": st.lists(WORDS).map(tuple),
        "skip": st.lists(WORDS).map(tuple),
        "seed": st.integers(0, 2**63 - 1),
        "threads": st.integers(1, 99),
        "benchmark": st.booleans(),
        "time_limit": st.none() | NUMBERS,
        "max_memory": st.none() | st.integers(0, 2**40),
        "libraries": st.lists(WORDS.map(Path)).map(tuple),
        "allow_synthetic": st.booleans(),
        "fuel": st.none() | st.integers(0, 9),
        "external_data": st.none() | st.booleans(),
    },
)
METRIC = st.just({}) | st.fixed_dictionaries({"metric": WORDS, "max_drop": NUMBERS})
SHARES = st.floats(0, 1, exclude_min=True)


@pytest.fixture(scope="session")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "r.toml"


@given(OPTIONS, METRIC, st.none() | WORDS)
def test_what_is_written_is_read_back(file, options, metric, calibration):
    asked = OptimizeOptions(**options, **metric)
    file.write_text(recipe_text(asked, calibration), encoding="utf-8")
    found = read_recipe(file)
    assert found.pop("calibration", None) == calibration
    assert OptimizeOptions(**found) == asked


@given(st.sampled_from(["time", "macs"]), SHARES)
def test_a_share_to_keep_is_written_with_all_its_digits(file, objective, share):
    asked = OptimizeOptions(keep={objective: share})
    file.write_text(recipe_text(asked), encoding="utf-8")
    assert OptimizeOptions(**read_recipe(file)).kept == Keep(objective, share)


VALUES = (
    st.booleans().map(lambda b: str(b).lower())
    | st.integers().map(str)
    | st.floats().map(repr)
    | WORDS.filter(str.isprintable).map(lambda text: f"'''\n{text}'''")
    | st.sampled_from(["[]", "[1]", "['a', 2]", "[['a']]", "{ a = 1 }", "1979-05-27", "''"])
)


@given(st.sampled_from(sorted(KEYS)), VALUES)
def test_any_value_is_taken_or_refused_by_file_and_key(file, key, value):
    file.write_text(f"{key} = {value}\n", encoding="utf-8")
    try:
        assert set(read_recipe(file)) == {key}
    except so.UsageError as error:
        message = str(error)
        assert message.startswith(f"{file}: ")
        assert f"'{key}'" in message or "the recipe is no TOML" in message


def test_every_option_has_a_key():
    assert set(_KINDS) == KEYS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max-error = 1", "unknown key 'max-error'; did you mean 'max_error'?"),
        ("calibrate = 'x'", "unknown key 'calibrate'; did you mean 'calibration'?"),
        ("zzz = 1", "unknown key 'zzz'; there are 'calibration', 'passes', "),
        ("max_error = '0.1'", "'max_error' is a number, not \"0.1\""),
        ("max_error = true", "'max_error' is a number, not true"),
        ("seed = 1.0", "'seed' is a whole number, not 1.0"),
        ("only = 'a'", "'only' is a list of strings, not \"a\""),
        ("only = [1]", "'only' is a list of strings, not [\"1\"]"),
        ("keep = { macs = 0.5 }", "'keep' is a string, not a table"),
        ("max_error = -1", "'max_error' is a number from 0 up, such as 0.05, not -1.0"),
        ("max_error = nan", "'max_error' is a number from 0 up, such as 0.05, not nan"),
        ("threads = 0", "'threads' is at least 1, not 0"),
        ("seed = -1", "'seed' is at least 0, not -1"),
        ("seed = 9223372036854775808", "'seed' is a whole number, and this is too large for one"),
        ("minimize = 'size'", "'minimize' is one of time, bytes, macs, parameters, not 'size'"),
        ("metric = 'agreement'", "'metric' needs 'max_drop' beside it"),
        ("passes = 'a,b'", "'passes': pipeline, character 1: no pass 'a'"),
        ("keep = 'macs=2'", "'keep' is a share over 0 and at most 1, such as macs=0.5, not 2"),
        ("x", "the recipe is no TOML: Expected '=' after a key"),
        ("\udcff", "the recipe is no TOML: 'utf-8' codec can't decode"),
    ],
)
def test_a_wrong_recipe_is_told_by_file_and_key(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(so.UsageError) as raised:
        so.read_recipe("r.toml")
    assert str(raised.value).startswith(f"r.toml: {said}")


def test_a_recipe_that_is_not_there_is_told_beside_the_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(so.UsageError, match=r"^balance: no such recipe; did you mean 'balanced'\?"):
        read_recipe("balance")
    for path in ("./balanced", ".//balanced"):
        with pytest.raises(so.UsageError) as raised:
            read_recipe(path)
        assert str(raised.value) == f"{path}: no such recipe; did you mean 'balanced'?"
    with pytest.raises(so.UsageError, match=r"^x\.toml: no such recipe; presets are safe, "):
        read_recipe("x.toml")
    with pytest.raises(so.UsageError, match=r"^\.: the recipe can't be read: "):
        read_recipe(".")
    Path("safe").write_text("seed = 3")
    assert read_recipe("safe") == {}
    assert read_recipe("./safe") == read_recipe(Path("safe")) == {"seed": 3}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_what_they_say(preset):
    options = OptimizeOptions(**read_recipe(preset))
    error = {"safe": None, "balanced": 0.02, "small": 0.05}[preset]
    assert (options.max_error, options.lossy) == (error, error is not None)
    assert options.minimize == ("bytes" if preset == "small" else "time")
    assert options.sparse_format == ("auto" if preset == "small" else None)
    read_recipe(preset)["seed"] = 9
    assert "seed" not in PRESETS[preset]


def test_what_python_alone_can_give_is_a_comment(tmp_path):
    def top1(run, samples):
        raise NotImplementedError

    options = OptimizeOptions(metric=top1, max_drop=0.1)
    text = recipe_text(options, {"x": np.zeros((2, 3))})
    assert "# calibration was given from Python (dict): give it again\n" in text
    assert re.search(r"\n# metric was given from Python \(\S+top1\): give it again\n", text)
    assert "max_drop = 0.1\n" in text
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(so.UsageError, match="'max_drop' needs 'metric' beside it"):
        read_recipe(path)


def test_a_name_that_is_no_unicode_does_not_break_the_text():
    assert 'only = ["a?"]' in recipe_text(OptimizeOptions(only=("a\udcff",)))


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for source, name in (("digits_mlp.onnx", "in.onnx"), ("digits_mlp_calibration.npz", "s.npz")):
        Path(name).symlink_to(MODELS / source)
    text = "calibration = 's.npz'\nmax_error = 0.1\nbenchmark = false\ncost_seconds = 0\n"
    Path("r.toml").write_text(text)
    return tmp_path


def test_a_recipe_makes_the_run_and_the_report_s_makes_it_again(workplace):
    first = so.optimize("in.onnx", "a.onnx", recipe="r.toml", max_error=0.05)
    recipe = first.report.recipe
    values = tomllib.loads(recipe)
    assert values.items() >= {"calibration": "s.npz", "max_error": 0.05, "benchmark": False}.items()
    assert str(workplace) not in to_json(first.report)
    assert json.loads(to_json(first.report))["recipe"] == recipe
    Path("again.toml").write_text(recipe)
    again = so.optimize("in.onnx", "b.onnx", recipe=Path("again.toml"))
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert again.report.recipe == recipe
    assert any(applied.option for applied in again.report.applied)


def test_explain_takes_one_and_given_data_win(workplace):
    told = so.explain("in.onnx", recipe="r.toml")
    assert told.samples.origin == "s.npz"
    assert 'calibration = "s.npz"' in told.recipe
    other = dict(np.load("s.npz"))
    told = so.explain("in.onnx", recipe="r.toml", calibration=other)
    assert "# calibration was given from Python (dict)" in told.recipe


def test_options_that_do_not_go_with_a_recipe_are_told_with_it(workplace):
    with pytest.raises(so.UsageError, match=r"macs must fall; .* \(beside the recipe small\)$"):
        so.optimize("in.onnx", recipe="small", keep="macs=0.5")
    with pytest.raises(so.UsageError, match="optimize got an unexpected keyword argument 'x'"):
        so.optimize("in.onnx", recipe="small", x=1)


def test_a_recipe_can_be_read_and_changed_in_python(workplace):
    values = so.read_recipe("r.toml") | {"max_error": None}
    assert so.optimize("in.onnx", **values).report.plan is None
