"""`--recipe` and `--write-recipe`: what wins, what is handed over, what is refused at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from structopt_onnx.api.recipe import PRESETS, read_recipe

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", ["optimize", "explain", "export"])
def test_only_what_is_given_is_handed_over_beside_a_recipe(run, calls, name):
    models = ("in.onnx",) if name == "explain" else ("in.onnx", "out.onnx")
    words = ("--recipe", "small", "--max-error", "0.05", "--minimize", "time", "--seed", "0")
    assert run(name, *models, *words).code == 0
    _, options = calls[name]
    del options["progress"]
    for taken in ("output", "module", "args"):
        options.pop(taken, None)
    # The last two are given as what they are by default: they win all the same.
    assert options == {"recipe": "small", "max_error": 0.05, "minimize": "time", "seed": 0}


def test_every_option_wins_when_it_is_given(run, calls):
    words = """--max-error 0.05 --calibration d --minimize bytes --tolerate 0.1 --target cpu
        --passes normalize --only a --skip c --fuel 7 --allow-synthetic --time-limit 2m
        --max-memory 1G --ort-library x.so --no-benchmark --benchmark-seconds 5 --cost-seconds 3
        --no-external-data --seed 3 --threads 2 --metric agreement --max-drop 0.01 --no-refit
        --keep bytes=0.5 --sparse-format delta --recover --recover-minutes 5"""
    assert run("optimize", "in.onnx", "out.onnx", *words.split()).code == 0
    _, plain = calls["optimize"]
    assert run("optimize", "in.onnx", "out.onnx", "--recipe", "safe", *words.split()).code == 0
    _, beside = calls["optimize"]
    for options in (plain, beside):
        del options["progress"]
    assert beside == plain | {"recipe": "safe"}


def test_presets_are_named_in_the_help(run):
    text = " ".join(run("optimize", "--help").out.split())
    told = text.partition("or from a preset: ")[2].partition(". Options")[0]
    assert all(preset in told for preset in PRESETS)
    for preset in ("balanced", "small"):
        assert f"{preset} (error {PRESETS[preset]['max_error']}, for" in told


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--write-recipe", "."), ".: --write-recipe needs a file, and this is a folder"),
        (("--write-recipe", "no/r.toml"), "no/r.toml: no such folder for --write-recipe"),
        (
            ("--write-recipe", "./a.onnx"),
            "a.onnx: --write-recipe would replace another file of this command",
        ),
        (
            ("--write-recipe", "r.md", "--report", "r.md"),
            "r.md: --write-recipe would replace another file of this command",
        ),
        (
            ("--recipe", "r.toml", "--write-recipe", "./r.toml"),
            "r.toml: --write-recipe would replace another file of this command",
        ),
        (
            ("--calibration", "s.npz", "--write-recipe", "s.npz"),
            "s.npz: --write-recipe would replace another file of this command",
        ),
        (
            ("--recipe", "r", "--report", "r"),
            "r: --report would replace another file of this command",
        ),
    ],
)
def test_a_recipe_that_can_not_be_written_stops_the_run_at_once(run, calls, words, said):
    done = run("optimize", "a.onnx", "b.onnx", *words)
    assert (done.code, done.err) == (2, f"error: {said}\n")
    assert calls == {}


@pytest.mark.usefixtures("in_tmp_path")
def test_a_preset_is_no_file_that_could_be_replaced(run, calls):
    words = ("--recipe", "small", "--write-recipe", "small")
    assert run("optimize", "a.onnx", "b.onnx", *words).code == 0
    assert Path("small").is_file()


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_eror = 1", "r.toml: unknown key 'max_eror'; did you mean 'max_error'?"),
        ("max_error = 'a'", "r.toml: 'max_error' is a number, not \"a\""),
        ("cost_seconds = -1", "r.toml: 'cost_seconds' is at least 0, not -1.0"),
    ],
)
def test_a_wrong_recipe_is_wrong_usage_and_keys_are_told_as_written(run, text, said):
    Path("r.toml").write_text(text)
    done = run("optimize", MODELS / "digits_mlp.onnx", "out.onnx", "--recipe", "r.toml")
    assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")


@pytest.mark.usefixtures("in_tmp_path")
def test_what_is_written_is_what_was_in_force(run):
    Path("in.toml").write_text("fuel = 1\nbenchmark = false\nseed = 5\n")
    model = MODELS / "sparse_linear_regression.onnx"
    words = ("--recipe", "in.toml", "--seed", "7", "--write-recipe", "out.toml", "--quiet")
    assert run("optimize", model, "out.onnx", *words).code == 0
    written = Path("out.toml").read_text(encoding="utf-8")
    found = tomllib.loads(written)
    assert (found["fuel"], found["benchmark"], found["seed"]) == (1, False, 7)
    again = ("--recipe", "out.toml", "--write-recipe", "again.toml", "--quiet")
    assert run("optimize", model, "out.onnx", *again).code == 0
    assert Path("again.toml").read_text(encoding="utf-8") == written
    assert read_recipe("again.toml")["seed"] == 7
