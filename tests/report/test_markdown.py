from __future__ import annotations

import re
from dataclasses import replace

from structopt_onnx.report.markdown import render_markdown


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def test_it_begins_with_the_verdict_and_has_the_tables(make):
    found = render_markdown(make.lossy())
    assert found.startswith("**digits.onnx -> out.onnx: 288,891 -> 141,302 bytes (-51.1%)")
    for title in ("Before and after", "Applied", "Lossy sites: 1 of 2", "Left alone", "Run"):
        assert f"### {title}" in found
    assert "| parameters | 71,754 | 16,458 | -77.1% |" in found


def test_every_row_has_as_many_cells_as_its_header_whatever_names_hold(make):
    plan = make.plan(make.site("a|b", "rank 8", "x | y"), make.site("<b>\n@me", None, "*no*"))
    found = render_markdown(replace(make.lossy(), plan=plan))
    tables = re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE)
    assert len(tables) >= 5
    for table in tables:
        assert len({cells(row) for row in table.splitlines()}) == 1
    assert "<b>" not in found.replace("\\<b>", "")
    assert "@me" not in found
    assert "\\*no\\*" in found


def test_long_tables_are_cut(make):
    plan = make.plan(*(make.site(f"w{n}", None, "") for n in range(30)))
    found = render_markdown(replace(make.lossy(), plan=plan))
    assert "| w19 |" in found
    assert "| w20 |" not in found
    assert "and 10 more" in found


def test_the_recipe_is_a_block_that_nothing_in_it_ends(make):
    recipe = '# structopt-onnx 1\nonly = ["```", "a -> b", "@me <b>"]\n'
    found = render_markdown(replace(make.lossy(), recipe=recipe))
    assert found.endswith(f"\n### Recipe\n\n```toml\n{recipe}```\n")
    assert sum(line.startswith("```") for line in found.splitlines()) == 2
    assert "### Recipe" not in render_markdown(make.lossy())
