from __future__ import annotations

import re
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from structopt_onnx.errors import UsageError
from structopt_onnx.report.html.page import MOST_ROWS, render_html
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.record import Applied
from structopt_onnx.runtime.coverage import Coverage

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Reads a page as strictly as a test needs: every tag closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        # A path or rect of an SVG closes itself.
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag in self.open:
            raise AssertionError(f"{tag} closed before {self.open[-1]}")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def text(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(read(page).words))


class Row:
    """A row of another package's provider table."""

    def __init__(self, **known: object) -> None:
        self.known = known

    def to_json(self) -> dict[str, object]:
        return self.known


def test_the_verdict_comes_first_and_everything_is_there(make):
    words = text(render_html(make.lossy()))
    order = [
        "optimized, validated",
        "of 0.05 allowed",
        "faster; 95 % interval 0.800 to 0.850",
        "Before and after",
        "Error against size",
        "Lossy sites: 1 of 2 changed",
        "over the budget",
        "Time after over time before",
        "Operators before and after",
        "Every rewrite in order",
        "Left alone",
        "weight-rank",
        "Validation",
        "Machine and versions",
        "1.19.0",
    ]
    places = [words.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)


def test_it_loads_nothing_and_runs_nothing(make):
    page = render_html(make.lossy())
    reader = read(page)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "iframe", "object", "embed", "img", "base", "form"}
    links = [a.get("href") or a.get("src") for _, a in reader.tags if "href" in a or "src" in a]
    assert links == ["data:,"]
    assert not [name for _, a in reader.tags for name in a if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    policy = next(a["content"] for t, a in reader.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("evil", [EVIL, '" onload="x', "{{ 7 * 7 }}", "</style><b>", "&lt;"])
def test_names_from_the_model_are_text_and_nothing_else(make, evil):
    report = make.lossy()
    sites = (make.site(evil, "rank 8", evil), make.site("head", None, evil))
    zero = Cost()
    applied = Applied(1, "factor-matmul", evil, evil, zero, zero, (evil,), (evil,), "rank 8")
    report = replace(
        report,
        source=evil,
        output=evil,
        options={"only": evil},
        applied=(applied,),
        refused=(make.refused("weight-rank", evil),),
        plan=make.plan(*sites),
        validation=make.validation({evil: 0.04}, 0.05),
        warnings=(evil,),
        notes=(evil,),
        before=replace(report.before, operators={evil: 2}),
    )
    page = render_html(report)
    reader = read(page)
    plain = read(render_html(make.lossy()))
    assert {tag for tag, _ in reader.tags} <= {tag for tag, _ in plain.tags}
    assert not [name for _, a in reader.tags for name in a if name.startswith("on")]
    assert evil in " ".join(reader.words)
    assert "49" not in text(page)


def test_characters_that_turn_or_hide_text_are_spelled_out(make):
    page = render_html(replace(make.lossy(), source="a\u202eb\x1b[2J\nc"))
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "a\\u202eb\\x1b[2J\\nc" in unescape(page)


def test_rows_of_providers_get_a_table(make):
    rows = [
        Row(provider="cpu", model="in.onnx", status="executed", nodes=9, p50_ms=0.5),
        Row(
            provider="qnn",
            model="in.onnx",
            status={"kind": "simulated", "text": "simulated"},
            relative_error=1e-3,
        ),
    ]
    words = text(render_html(make.lossy(), rows))
    assert "By provider provider model status nodes error p50, ms" in words
    assert "cpu in.onnx executed 9 - 0.5" in words
    assert "qnn in.onnx simulated - 0.001 -" in words


def test_without_them_predicted_coverage_stands_in(make):
    report = replace(
        make.lossy(),
        coverage_before=Coverage("nnapi", 10, 4, 2),
        coverage_after=Coverage("nnapi", 8, 8, 1),
    )
    words = text(render_html(report))
    assert "nnapi before predicted 10 4 2 nnapi after predicted 8 8 1" in words
    assert "By provider" not in text(render_html(make.lossy()))


def test_what_failed_or_did_nothing_says_so(make):
    assert "not carried out" in text(render_html(make.empty()))
    broken = make.validation({"y": 1.0}, 0.05, ("output 'y': wrong",))
    words = text(render_html(replace(make.lossy(), validation=broken)))
    assert "validation FAILED" in words
    assert "output 'y': wrong" in words
    calm = replace(make.empty(), validation=make.validation({"y": 0.0}, 0.05))
    assert "nothing applied, validated" in text(render_html(calm))
    offers = replace(make.empty(), plan=make.plan(make.site("fc", None, "not probed"), final=None))
    assert "2: rank 8 ... rank 16" in text(render_html(offers))


def test_long_tables_are_cut_and_say_so(make):
    many = tuple(
        Applied(n, "normalize", f"edit {n}", "", Cost(), Cost()) for n in range(MOST_ROWS + 7)
    )
    words = text(render_html(replace(make.lossy(), applied=many)))
    assert f"edit {MOST_ROWS - 1} " in words
    assert f"edit {MOST_ROWS} " not in words
    assert "and 7 more, in the JSON report" in words


def test_equal_reports_give_equal_pages(make):
    assert render_html(make.lossy()) == render_html(make.lossy())


def test_it_is_written_where_one_says(make, tmp_path):
    path = make.lossy().to_html(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8") == render_html(make.lossy())
    with pytest.raises(UsageError, match="can't be written"):
        make.lossy().to_html(tmp_path / "missing" / "r.html")


def test_a_notebook_shows_it_in_a_frame(make):
    ((tag, attributes),) = read(make.lossy()._repr_html_()).tags
    assert tag == "iframe"
    assert "sandbox" in attributes
    assert attributes["srcdoc"] == render_html(make.lossy())


def test_without_jinja2_there_is_one_clear_error_and_plain_text_in_notebooks(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    message = r"HTML reports need jinja2: pip install 'structopt-onnx\[report\]'"
    with pytest.raises(UsageError, match=message):
        render_html(make.lossy())
    shown = make.lossy()._repr_html_()
    assert shown.startswith("<pre>digits.onnx -&gt; out.onnx")


def test_without_matplotlib_too(make, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"plots need matplotlib: pip install 'structopt-onnx"):
        make.lossy().to_png(tmp_path)


def test_many_sites_are_folded_behind_the_first(make):
    plan = make.plan(*(make.site(f"w{n:02}", None, "") for n in range(30)))
    words = text(render_html(replace(make.lossy(), plan=plan)))
    before, _, folded = words.partition("All 30 sites")
    assert "w15" in before
    assert "w16 factor-matmul kept" not in before
    assert "w29 factor-matmul kept" in folded


def test_the_recipe_can_be_copied_as_it_is(make):
    recipe = f'# structopt-onnx 1\nonly = ["a -> b", "{EVIL}"]\nseed = 0\n'
    page = render_html(replace(make.lossy(), recipe=recipe))
    assert EVIL not in page
    assert recipe in read(page).words
    assert "Recipe" not in text(render_html(make.lossy()))
