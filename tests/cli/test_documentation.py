"""README and docs say what is true: commands parse and run, code runs, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import warnings
from dataclasses import fields
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import typer

import structopt_onnx as so
from structopt_onnx import passes
from structopt_onnx.cli.app import app
from structopt_onnx.cli.pass_docs import INDEX, index_text, page_text
from structopt_onnx.cli.pass_pages import pages
from structopt_onnx.report.record import Report
from structopt_onnx.rewriting.passes import Pass

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs" / "passes"
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY = [*WRITTEN, *sorted(GENERATED.glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_YAML_KEY = re.compile(r"^ *(?:(?:- )?(?:run|entry): )?")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Of a program's other than this one's.
_FOREIGN = re.compile(r"\b(?:pip|git|python -m (?:build|pytest)|pytest|ruff|jq)\b")


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [body for found, body in _FENCED.findall(text) if found == language]


def commands(path: Path) -> list[list[str]]:
    """Words after the program's name, of every command line in a page."""
    bodies = "".join([*blocks(path, "sh"), *blocks(path, "yaml")]).replace("\\\n", " ")
    lines = [_YAML_KEY.sub("", line) for line in bodies.splitlines()]
    return [
        shlex.split(re.split(r" [|>] ", line)[0])[1:]
        for line in lines
        if Path(line.partition(" ")[0]).name == "structopt-onnx"
    ]


COMMANDS = [(path.name, words) for path in WRITTEN for words in commands(path)]


def each(table):
    return pytest.mark.parametrize(
        ("page", "words"), table, ids=lambda value: " ".join(value)[:60] if value else ""
    )


@each(COMMANDS)
@pytest.mark.usefixtures("in_tmp_path")
def test_commands_are_accepted(run, calls, page, words):
    done = run(*words)
    assert (done.code, done.err) == (0, ""), page
    asked = "compare_providers" if "--provider" in words else words[0]
    assert asked in {*calls, "passes"}


def test_there_are_commands_in_the_pages_that_are_about_them():
    assert {page for page, _ in COMMANDS} >= {"README.md", "ci.md", "targets.md"}


def test_no_option_is_named_that_is_not_there():
    group = typer.main.get_command(app)
    commands = [group, *group.commands.values()]
    known = {name for c in commands for p in c.params for name in (*p.opts, *p.secondary_opts)}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    known |= {"--help", "--version"}
    named = {
        (path.name, option)
        for path in EVERY
        for line in path.read_text(encoding="utf-8").splitlines()
        if not _FOREIGN.search(line)
        for option in _OPTION.findall(line)
    }
    assert {(page, option) for page, option in named if option not in known} == set()
    assert ("README.md", "--max-error") in named


@pytest.mark.usefixtures("in_tmp_path")
def test_the_hook_is_accepted_with_the_arguments_of_the_page(run, calls):
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    name = re.search(r"^- id: (\S+)$", hook, re.MULTILINE)[1]
    entry = re.search(r"^  entry: structopt-onnx (.+)$", hook, re.MULTILINE)[1]
    arguments = json.loads(re.search(rf"- id: {name}\n +args: (\[.+\])$", page, re.MULTILINE)[1])
    assert run(*entry.split(), *arguments).code == 0
    assert "validate" in calls


def test_recipes_in_the_pages_are_valid(tmp_path):
    pages = [
        path for path in WRITTEN if path.name != "write_a_pass.md"
    ]  # that has a pyproject.toml
    recipes = [body for path in pages for body in blocks(path, "toml")]
    assert recipes
    for number, body in enumerate(recipes):
        path = tmp_path / f"{number}.toml"
        path.write_text(body, encoding="utf-8")
        assert so.read_recipe(path)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with the models of the README, and those that code blocks take for granted."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    models = ROOT / "models"
    for name in ("in", "model"):
        shutil.copy(models / "digits_mlp.onnx", tmp_path / f"{name}.onnx")
    shutil.copy(models / "digits_mlp_calibration.npz", tmp_path / "samples.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_s_commands_do_what_it_says(run, workplace):
    for body in blocks(ROOT / "README.md", "python"):
        if name := re.match(r"# (\w+\.py)\n", body):
            (workplace / name[1]).write_text(body, encoding="utf-8")
    ran = []
    shipped = [w for w in commands(ROOT / "README.md") if w[1].startswith("models/")]
    for words in shipped:
        if "--recover" in words and find_spec("torch") is None:
            continue
        quick = ["--no-benchmark", "--cost-seconds", "0"] if words[0] == "optimize" else []
        done = run(*words, *quick)
        assert (done.code, done.err) == (0, ""), words
        assert "validation failed" not in done.out.lower()
        ran.append(words[0])
    assert {"optimize", "validate"} <= set(ran)


def test_calibration_data_are_given_beside_a_budget():
    """Without one nothing is fitted to them, and an example that gives them does nothing more."""
    calls = [
        call
        for path in WRITTEN
        for body in blocks(path, "python")
        for call in re.findall(r"\bso\.optimize\(.*?\)$", body, re.MULTILINE | re.DOTALL)
        if "calibration=" in call
    ]
    assert len(calls) > 2
    budget = re.compile(r"\b(?:max_error|keep|metric|recipe)=")
    assert [call for call in calls if not budget.search(call)] == []


CODE = [
    path
    for path in WRITTEN
    if path.name != "write_a_pass.md"
    and any(not re.match(r"# \w+\.py\n", body) for body in blocks(path, "python"))
]


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_code_runs(workplace, monkeypatch, path):
    for name in ("optimize", "export"):
        quick = partial(getattr(so, name), benchmark=False, cost_seconds=0)
        monkeypatch.setattr(so, name, quick)
    monkeypatch.setattr(so, "compare_providers", partial(so.compare_providers, seconds=3))
    ran = 0
    for body in blocks(path, "python"):
        wanted = re.findall(r"^(?:import|from) (torch|distributed)", body, re.MULTILINE)
        scheduler = "distributed" in wanted  # would have to be running
        if scheduler or any(find_spec(name) is None for name in wanted):
            continue
        with warnings.catch_warnings():
            if wanted:
                warnings.simplefilter("ignore")  # torch's own
            exec(compile(body, str(path), "exec", dont_inherit=True), {"__name__": "example"})
        ran += 1
    assert ran
    assert (workplace / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def negated(*, to_output: bool) -> onnx.ModelProto:
    last = "y" if to_output else "b"
    tail = "" if to_output else "y = Relu(b)"
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        g (float[2] x) => (float[2] y) {{ a = Neg(x) {last} = Neg(a) {tail} }}"""
    )


def test_the_pass_of_the_guide_works(tmp_path, monkeypatch):
    (body,) = blocks(ROOT / "docs" / "write_a_pass.md", "python")
    (tmp_path / "my_passes.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    step = import_module("my_passes").CancelNegations
    assert issubclass(step, Pass)
    (entry,) = blocks(ROOT / "docs" / "write_a_pass.md", "toml")
    assert f'[project.entry-points."{passes.GROUP}"]' in entry
    assert f"{step.name} = " in entry
    offered = SimpleNamespace(name=step.name, value="my_passes:CancelNegations", load=lambda: step)
    monkeypatch.setattr(passes, "entry_points", lambda **_: [offered])
    found = so.optimize(negated(to_output=False), benchmark=False)
    assert [node.op_type for node in found.model.graph] == ["Relu"]
    assert step.name in {applied.step for applied in found.report.applied}
    kept = so.explain(negated(to_output=True))
    assert "negation-makes-output" in {r.refusal.code for r in kept.refused}


def test_the_pages_of_the_passes_are_those_that_are_made():
    own = [page for page in pages() if page.package is None]
    made = {f"{page.name}.md": page_text(page) for page in own} | {INDEX: index_text(own)}
    there = {path.name: path.read_text(encoding="utf-8") for path in GENERATED.iterdir()}
    remedy = "run: structopt-onnx passes --quiet --docs docs/passes"
    assert sorted(there) == sorted(made), remedy
    assert [name for name in made if there[name] != made[name]] == [], remedy


def test_links_lead_somewhere():
    for path in EVERY:
        text = _FENCED.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                assert (path.parent / target.partition("#")[0]).exists(), (path.name, target)


@pytest.mark.parametrize(
    "name", ["example_report.html", "example_report.png", "example_report_phone.png"]
)
def test_the_example_is_small_enough_to_keep(name):
    assert 10_000 < (ROOT / "docs" / name).stat().st_size <= 300_000


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in WRITTEN:
        assert path.name == "README.md" or f"({path.name})" in index


def test_the_keys_of_the_json_are_documented():
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    derived = {name for name, kind in vars(Report).items() if isinstance(kind, property)}
    keys = {f.name for f in fields(Report)} | derived
    assert "caveats" in keys
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
    assert re.search(r"`schema` is the version of this form, now (\d+)", text)[1] == str(
        Report.schema
    )
