from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structopt_onnx.report.figures import change, milliseconds, name, plural, shown


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (288891, 141302, "-51.1%"),
        (10, 10, "same"),
        (0, 0, "same"),
        (0, 3, "+3"),
        (3, 0, "-100.0%"),
        (100000, 99999, "-0.001%"),
        (100000, 1, "-99.999%"),
        (2, 5, "+150.0%"),
    ],
)
def test_changes(before, after, text):
    assert change(before, after) == text


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_change_is_never_understated_to_none_nor_overstated_to_all(before, after):
    text = change(before, after)
    assert (text == "same") == (before == after)
    if before != after:
        assert text[0] == ("+" if after > before else "-")
    if before > after > 0 and before < 10**6:
        assert float(text.rstrip("%")) > -100


@given(st.text())
def test_shown_text_is_one_printable_line_and_printable_text_is_kept(text):
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)
    assert len(name(text)) <= 48


def test_plurals():
    assert [plural(1, "patch"), plural(2, "patch"), plural(1200, "sample")] == [
        "1 patch",
        "2 patches",
        "1,200 samples",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0123456, "0.0123"), (999.4, "999"), (999.6, "1,000"), (2094.3, "2,090")],
)
def test_times_have_three_digits_and_no_exponent(value, text):
    assert milliseconds(value) == text
