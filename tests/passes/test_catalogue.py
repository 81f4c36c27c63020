from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from cases import read_case

import structopt_onnx.passes
from structopt_onnx.errors import UsageError
from structopt_onnx.passes import GROUP, OWN, catalogue
from structopt_onnx.rewriting.passes import Cleanup, Pass, Step

_ROOM = Path(structopt_onnx.passes.__file__).parent
_CASES = Path(__file__).parent
_HEADINGS = ["What it does", "Why", "Leaves alone", "Exactness"]
_OWN = pytest.mark.parametrize("step", OWN, ids=lambda step: step.name)


def _module(step: type[Step]) -> Path:
    return Path(sys.modules[step.__module__].__file__ or "")


def _cases(step: type[Step]):
    return [read_case(path) for path in sorted((_CASES / step.name).glob("*.onnxtxt"))]


def _refused(step: type[Step]) -> set[str]:
    lines = [line for case in _cases(step) for line in case.sections.get("refused", "").split("\n")]
    return {line.split(" ")[0] for line in lines}


@_OWN
def test_a_pass_lies_in_the_file_named_after_it(step: type[Step]):
    assert _module(step).stem == step.name.replace("-", "_")
    assert _module(step).is_relative_to(_ROOM)


@_OWN
def test_a_pass_says_what_it_does(step: type[Step]):
    text = ast.get_docstring(ast.parse(_module(step).read_text(encoding="utf-8"))) or ""
    assert text.startswith(f"{step.name}: ")
    assert re.findall(r"^(\w[\w ]*)$", text, re.MULTILINE) == _HEADINGS
    promise = text.split("Exactness\n")[1]
    assert promise.strip().startswith(step.exactness.name)


def test_the_readme_lists_every_pass_in_run_order():
    text = (_CASES.parents[1] / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (bitwise|rounding|lossy) \|", text, re.MULTILINE)
    assert table == [(step.name, step.exactness.name.lower()) for step in OWN]


@_OWN
def test_a_pass_has_a_case_that_rewrites(step: type[Step]):
    assert any("after" in case.sections for case in _cases(step))


@_OWN
def test_a_pass_has_a_case_per_refusal_code(step: type[Step]):
    missing = set(getattr(step, "refusals", {})) - _refused(step)
    assert not missing


@_OWN
def test_a_pass_file_is_short(step: type[Step]):
    assert len(_module(step).read_text(encoding="utf-8").splitlines()) <= 250


def test_every_pass_written_is_in_the_catalogue():
    written = {
        kind
        for base in (Pass, Cleanup)
        for kind in _subclasses(base)
        if kind.__module__.startswith("structopt_onnx.passes.")
    }
    assert written == set(OWN)
    declared = {
        path.stem
        for path in _ROOM.glob("*/*.py")
        if re.search(
            r"^    name: ClassVar\[str\] =", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert declared == {_module(step).stem for step in OWN}


def _subclasses(kind: type) -> set[type]:
    return {kind for sub in kind.__subclasses__() for kind in (sub, *_subclasses(sub))}


def test_cases_are_of_known_passes():
    folders = {path.parent.name for path in _CASES.glob("*/*.onnxtxt")}
    assert folders == {step.name for step in OWN}


def test_steps_have_distinct_names_and_work_without_options():
    assert list(catalogue())[: len(OWN)] == [step.name for step in OWN]
    assert len({step.name for step in OWN}) == len(OWN)
    assert [step().text() for step in OWN] == [step.name for step in OWN]


# Passes of other packages -----------------------------------------------------------------------

_PASS = """
from dataclasses import dataclass
from typing import ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Pass


@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "{name}"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def propose(self, scope, facts):
        return iter(())


NO_PASS = 3
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that installs a distribution which offers one entry point."""

    def install(target: str, *, name: str = "third-party") -> None:
        folder = tmp_path / "third_party_passes-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Name: third-party-passes\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\nmine = {target}\n")
        (tmp_path / "third_party_passes.py").write_text(_PASS.format(name=name))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "third_party_passes", raising=False)

    return install


def test_a_pass_of_another_package_comes_last(installed):
    installed("third_party_passes:Mine")
    name, step = list(catalogue().items())[-1]
    assert name == "third-party"
    assert step.__module__ == "third_party_passes"
    assert issubclass(step, Pass)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("third_party_passes:Missing", "does not load"),
        ("no_such_module:Mine", "does not load"),
        ("third_party_passes:NO_PASS", "is no Pass"),
    ],
)
def test_a_broken_entry_point_is_a_usage_error(installed, target: str, message: str):
    installed(target)
    with pytest.raises(UsageError, match=f"third-party pass 'mine' {message}"):
        catalogue()


def test_an_entry_point_can_not_take_a_name(installed):
    installed("third_party_passes:Mine", name="normalize")
    with pytest.raises(UsageError, match="takes the name 'normalize'"):
        catalogue()
