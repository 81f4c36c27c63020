from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import onnx_ir as ir  # noqa: TC002 - typing reads the annotations of a pass
import pytest

from structopt_onnx import passes
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup


@dataclass(frozen=True)
class Foreign(Cleanup):
    """Does what others do.

    Parameters
    ----------
    limit, share
        How far to go,
        in nodes.
    text
        Any words.

    Notes
    -----
    limit
        Not this.
    """

    name: ClassVar[str] = "foreign-pass"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    limit: int = 3
    share: float = 0.5
    text: str = ""

    def run(self, model: ir.Model) -> None:
        """Do nothing."""


@pytest.fixture
def _foreign(monkeypatch):
    entry = SimpleNamespace(name="foreign-pass", value="x:y", load=lambda: Foreign)
    monkeypatch.setattr(passes, "entry_points", lambda **_: [entry])


def listed(run, *words: str) -> dict[str, dict]:
    return {
        page["name"]: page for page in json.loads(run("passes", *words, "--json").out)["passes"]
    }


def test_all_passes_are_listed_in_run_order(run):
    assert [*listed(run)] == sorted(listed(run), key=[*passes.catalogue()].index)
    assert listed(run).keys() == passes.catalogue().keys()


def test_every_pass_says_what_it_does_why_and_how_exactly(run):
    for page in listed(run).values():
        assert page["summary"]
        assert not page["summary"].startswith(page["name"])
        assert page["exactness"] in {"bitwise", "rounding", "lossy"}
        for heading in ("What it does", "Why", "Leaves alone", "Exactness"):
            assert heading in page["text"]
        assert all(option["text"] for option in page["options"]), page["name"]


def test_options_and_refusals_are_the_passes_own(run):
    page = listed(run)["share-initializers"]
    assert page["options"] == [
        {
            "name": "absorb",
            "type": "bool",
            "default": "true",
            "text": "Also share transposed and reshaped copies whose readers can absorb the "
            "difference.",
        }
    ]
    assert page["refusals"] == dict(passes.catalogue()["share-initializers"].refusals)


def test_one_pass_is_shown_in_full(run):
    text = run("passes", "factor-matmul").out
    assert text.startswith("factor-matmul: ")
    assert "\nWhat it does\n    " in text
    assert "\nOptions\n" in text
    assert "weight-tied" in text
    assert [*listed(run, "factor-matmul")] == ["factor-matmul"]


@pytest.mark.usefixtures("_foreign")
def test_passes_of_other_packages_come_last_and_name_their_package(run):
    page = [*listed(run).values()][-1]
    assert page["name"] == "foreign-pass"
    assert page["package"] == Foreign.__module__.partition(".")[0]
    assert [(o["name"], o["default"], o["text"]) for o in page["options"]] == [
        ("limit", "3", "How far to go, in nodes."),
        ("share", "0.5", "How far to go, in nodes."),
        ("text", "", "Any words."),
    ]
    assert f"foreign-pass (bitwise, from {page['package']})" in run("passes").out
