from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import structopt_onnx
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.cli import main
from structopt_onnx.cli.app import app
from structopt_onnx.cli.quantities import memory, seconds

COMMANDS = [
    "optimize",
    "export",
    "explain",
    "validate",
    "benchmark",
    "providers",
    "inspect",
    "passes",
    "bisect",
    "bundle",
    "densify",
]
MODULE = [sys.executable, "-m", "structopt_onnx"]


def test_the_commands_are_these(run):
    listed = run("--help").out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)  ", listed, re.MULTILINE) == COMMANDS


def test_help_and_version_import_nothing_heavy():
    script = f"""
import sys
from structopt_onnx.cli import main
lines = [["--help"], ["--version"], *([name, "--help"] for name in {COMMANDS!r})]
codes = [main(line) for line in lines]
heavy = {{"onnx", "onnxruntime", "onnx_ir", "onnxscript", "numpy", "scipy", "torch"}}
print(codes, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{[0] * 13} []"


def test_python_m_runs_it():
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"structopt-onnx {structopt_onnx.__version__}\n",
        "",
    )


def test_every_command_is_in_the_table_of_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| command | does |\n")
    rows = table.partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z]+)\b", rows, re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options_and_examples(run, name):
    text = run(name, "--help").out
    for option in ("--json", "--quiet", "--seed", "--threads"):
        assert option in text
    assert "Examples:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_sentences_in_the_help_have_single_spaces(run, name):
    head = run(name, "--help").out.partition("Options:")[0].partition("Arguments:")[0]
    assert not re.search(r"\S  +\S", head)


@pytest.mark.parametrize("name", ["optimize", "export"])
def test_what_threads_are_not_about_is_in_the_help(run, name):
    text = " ".join(run(name, "--help").out.split())
    assert "recovery take the cores that this process may use." in text


@pytest.mark.parametrize("name", COMMANDS)
def test_only_a_command_that_reads_in_may_write_over_it(run, name):
    text = run(name, "--help").out
    if "may be IN" in text:
        assert re.search(r"^ +IN +", text, re.MULTILINE)
    assert ("may be IN" in text) == (name in {"optimize", "densify"})


def test_the_exit_codes_are_in_the_help(run):
    text = run("--help").out
    codes = re.findall(r"\b(\d+) \w", text.partition("Exit codes:")[2])
    assert codes == ["0", "1", "2", "3", "4", "129", "130", "141", "143"]
    assert max(map(len, text.splitlines())) <= 100


EXAMPLES = [
    (name, line.strip())
    for name in COMMANDS
    for command in app.registered_commands
    if command.callback is not None and command.callback.__name__ == name
    for line in (command.epilog or "").splitlines()
    if line.strip().startswith("structopt-onnx")
]


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_examples_in_the_help_are_accepted(run, calls, name, example):
    words = shlex.split(re.split(r" [|>] ", example)[0])
    assert run(*words[1:]).code == 0
    asked = "compare_providers" if "--provider" in words else name
    assert asked in {*calls, "passes"}


def test_there_are_examples_of_every_command():
    assert {name for name, _ in EXAMPLES} == set(COMMANDS)


def test_optimize_hands_every_option_over(run, calls):
    words = """optimize in.onnx out.onnx --max-error 0.05 --calibration data.npz --minimize bytes
        --tolerate 0.1 --target cpu --passes normalize --only a* --only b --skip c --fuel 7
        --allow-synthetic --time-limit 2m --max-memory 1.5G --ort-library x.so --no-benchmark
        --benchmark-seconds 5 --cost-seconds 3 --no-external-data --seed 3 --threads 2 --quiet
        --metric agreement --max-drop 0.01 --keep bytes=0.5 --no-refit --sparse-format delta
        --recover --recover-minutes 5"""
    assert run(*words.split()).code == 0
    args, options = calls["optimize"]
    assert args == (Path("in.onnx"), Path("out.onnx"))
    assert callable(options.pop("progress"))
    assert options == {
        "calibration": "data.npz",
        "passes": "normalize",
        "max_error": 0.05,
        "metric": "agreement",
        "max_drop": 0.01,
        "keep": "bytes=0.5",
        "sparse_format": "delta",
        "refit": False,
        "recover": True,
        "recover_minutes": 5.0,
        "minimize": "bytes",
        "tolerate": 0.1,
        "target": "cpu",
        "only": ("a*", "b"),
        "skip": ("c",),
        "seed": 3,
        "threads": 2,
        "benchmark": False,
        "benchmark_seconds": 5.0,
        "cost_seconds": 3.0,
        "time_limit": 120.0,
        "max_memory": 3 << 29,
        "libraries": (Path("x.so"),),
        "allow_synthetic": True,
        "fuel": 7,
        "external_data": False,
    }
    assert type(options["minimize"]) is str


def test_the_defaults_are_those_of_the_functions(run, calls):
    run("optimize", "in.onnx", "out.onnx", "-q")
    _, options = calls["optimize"]
    assert options.pop("calibration") is None
    del options["progress"]
    assert options == {field.name: field.default for field in fields(OptimizeOptions)}


def test_benchmark_takes_one_model_or_two(run, calls):
    assert run("benchmark", "a.onnx", "-q").code == 0
    assert calls["benchmark"][0] == (Path("a.onnx"), None)
    words = "benchmark a.onnx b.onnx --data d --seconds 60 --replicates 12 --threads 2 --seed 1 -q"
    assert run(*words.split()).code == 0
    assert calls["benchmark"] == (
        (Path("a.onnx"), Path("b.onnx")),
        {
            "data": "d",
            "seconds": 60.0,
            "replicates": 12,
            "threads": 2,
            "seed": 1,
            "libraries": (),
        },
    )


def test_benchmark_over_providers_is_another_function(run, calls):
    words = "benchmark a.onnx --provider cpu --provider qnn=. --data d --seconds 9 --seed 1 -q"
    assert run(*words.split()).code == 0
    assert "benchmark" not in calls
    models, options = calls["compare_providers"]
    assert models == (Path("a.onnx"), None)
    del options["progress"]
    assert options == {
        "providers": ["cpu", "qnn=."],
        "data": "d",
        "seconds": 9.0,
        "replicates": 8,
        "threads": 1,
        "seed": 1,
        "libraries": (),
    }


def test_providers_are_probed_by_name_or_all(run, calls):
    assert run("providers", "-q").code == 0
    assert calls["providers"][0] == ((),)
    assert run("providers", "cpu", "xnnpack=x", "-q").code == 0
    assert calls["providers"][0] == (("cpu", "xnnpack=x"),)


def test_bisect_and_inspect_hand_their_options_over(run, calls):
    words = "--data d --ort-library x.so --seed 4 --threads 2 -q"
    common = {"data": "d", "libraries": (Path("x.so"),), "seed": 4, "threads": 2}
    assert run("inspect", "a.onnx", *words.split()).code == 0
    assert calls["inspect"] == ((Path("a.onnx"),), common)
    words += " --calibration c --max-error 0.1"
    assert run("bisect", "a.onnx", "b.onnx", *words.split()).code == 0
    args, options = calls["bisect"]
    del options["progress"]
    assert args == (Path("a.onnx"), Path("b.onnx"))
    assert options == {**common, "calibration": "c", "max_error": 0.1}


def test_json_is_all_there_is_on_standard_output(run, calls):
    for name in COMMANDS:
        if name == "passes":
            continue
        models = ["a.onnx"] if name in {"explain", "inspect"} else ["a.onnx", "b.onnx"]
        done = run(name, *models, "--json")
        assert name in calls
        assert done.code == 0
        assert json.loads(done.out)["schema"] == 1
        assert done.err == ""


def test_quiet_says_nothing_yet_json_is_given_when_asked_for(run, calls):
    assert calls == {}
    done = run("optimize", "a.onnx", "b.onnx", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert json.loads(run("optimize", "a.onnx", "b.onnx", "--quiet", "--json").out)


def test_the_report_goes_to_a_file_too(run, calls, tmp_path):
    target = tmp_path / "report.json"
    done = run("optimize", "a.onnx", "b.onnx", "--report", target)
    assert json.loads(target.read_text())["source"] == "in.onnx"
    assert done.out.startswith("in.onnx -> out.onnx")


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize("wrong", ["missing/report.json", ".", "a.onnx", "b.onnx", "-"])
def test_a_report_that_can_not_be_written_stops_the_run_at_once(run, calls, wrong):
    done = run("optimize", "a.onnx", "b.onnx", "--report", wrong)
    assert done.code == 2
    assert done.err.startswith(f"error: {wrong}: ")
    assert calls == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512M", 512 << 20), ("4G", 4 << 30), ("4GiB", 4 << 30), ("1.5kb", 1536), (" 77 ", 77)],
)
def test_sizes(text, expected):
    assert memory(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2H", 7200), ("0", 0)]
)
def test_times(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("option", ["--max-memory", "--time-limit"])
@pytest.mark.parametrize("text", ["", "-1", "much", "3x", "1e3", "nan", "M", "1 2"])
def test_what_is_no_quantity_is_wrong_usage(run, calls, option, text):
    done = run("optimize", "a", "b", f"{option}={text}")
    assert done.code == 2
    assert f"'{text}' is no" in done.err
    assert calls == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing command"),
        (["optimise"], "No such command 'optimise'"),
        (["optimize", "a.onnx"], "Missing argument 'OUT'"),
        (["optimize", "a", "b", "--minimize", "size"], "'size' is not one of 'time', 'bytes'"),
        (["optimize", "a", "b", "--threads", "0"], "--threads"),
        (["optimize", "a", "b", "--max-errors", "0.1"], "--max-error"),
        (["passes", "factor-matmull"], "did you mean 'factor-matmul'?"),
        (["passes", "zzz"], "there are: normalize, "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, said):
    done = run(*words)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert said in done.err


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [*MODULE, "passes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_main_takes_the_command_line_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["structopt-onnx", "--version"])
    assert main() == 0
    assert structopt_onnx.__version__ in capsys.readouterr().out


def test_the_package_lists_its_public_names_only():
    listed = {name for name in dir(structopt_onnx) if not name.startswith("__")}
    assert listed == set(structopt_onnx.__all__)
