from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structopt_onnx.report.charts.chart import Axis, Chart, Mark, Series
from structopt_onnx.report.charts.of_plan import curve_chart, options_chart, spectrum_chart
from structopt_onnx.report.charts.of_run import MOST_SITES, charts_of, site_charts
from structopt_onnx.report.charts.of_times import latency_chart, ratio_chart
from structopt_onnx.report.charts.png import write_png
from structopt_onnx.report.charts.scale import scales
from structopt_onnx.report.charts.svg import svg
from structopt_onnx.report.curve_record import Curve, CurvePoint
from structopt_onnx.rewriting.cost import Cost

NUMBERS = st.floats(-1e12, 1e12) | st.floats(1e-12, 1e3) | st.sampled_from([math.inf, math.nan])


def chart(points, *, log=False, marks=(), name="s") -> Chart:
    series = Series(name, tuple(points), "dots", "plain")
    return Chart("c", "t", "says", Axis("x"), Axis("y", log=log), (series,), tuple(marks))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), st.booleans())
def test_whatever_the_numbers_what_is_drawn_lies_inside(points, log):
    made = chart(points, log=log)
    text = svg(made)
    if not text:
        assert scales(made) is None
        return
    root = ET.fromstring(text)
    width, height = map(float, root.get("viewBox").split()[2:])
    for dot in root.iter("circle"):
        assert 0 <= float(dot.get("cx")) <= width
        assert 0 <= float(dot.get("cy")) <= height
    for scale in scales(made):
        places = [place for place, _ in scale.ticks()]
        assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
        assert len(places) <= 12


def test_every_point_that_can_be_drawn_is_drawn():
    made = chart([(1, 1), (2, 0.1), (3, 0), (4, -1), (5, 0.01)], log=True)
    root = ET.fromstring(svg(made))
    dots = [(float(d.get("cx")), float(d.get("cy"))) for d in root.iter("circle")]
    assert len(dots) == 4  # a logarithm has no place for -1
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    one, tenth, zero, hundredth = (y for _, y in dots)
    assert one < tenth < hundredth < zero  # down the page


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1e-5, 1e-1), ["1e-5", "1e-4", "0.001", "0.01", "0.1"]),
        ((0.01, 0.1), ["0.01", "0.02", "0.05", "0.1"]),
        ((0.12376, 0.12384), ["0.12376", "0.12378", "0.1238", "0.12382", "0.12384"]),
        ((0.0025, 0.0035), ["0.0025", "0.00275", "0.003", "0.00325", "0.0035"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(values, expected):
    _, scale = scales(chart([(1, value) for value in values], log=True))
    assert [text for _, text in scale.ticks()] == expected


def test_ticks_of_an_even_axis():
    x, _ = scales(chart([(0, 1), (60000, 1)]))
    assert [text for _, text in x.ticks()] == ["0", "20,000", "40,000", "60,000"]


def test_nothing_to_draw_draws_nothing(tmp_path):
    assert svg(chart([])) == ""
    assert write_png([chart([])], tmp_path) == []


def test_text_is_escaped_in_the_drawing():
    evil = '"><script>alert(1)</script>'
    text = svg(chart([(1, 1)], name=evil, marks=[Mark(evil, "x", 1.0, "limit")]))
    assert "<script" not in text
    ET.fromstring(text)


def test_the_curve_shows_what_was_offered_tried_and_made(make):
    made = curve_chart(make.lossy(), kept=True)
    roles = {series.role: series.points for series in made.series}
    assert roles["plain"][0] == (1.0, 0.0)
    assert roles["before"] == ((65848 / 287032, 0.042),)
    assert roles["chosen"] == ((65848 / 287032, 0.043),)
    assert [mark.at for mark in made.marks] == [0.05]
    undone = curve_chart(make.lossy(), kept=False)
    assert "chosen" not in {series.role for series in undone.series}
    assert curve_chart(make.empty(), kept=True) is None
    nothing = make.plan(final=None, curve=Curve((CurvePoint(Cost(1, 1), 0.0),)))
    assert curve_chart(make.changed(make.lossy(), plan=nothing), kept=True) is None


def test_a_site_shows_its_cut(make):
    changed, kept = make.lossy().plan.sites
    made = spectrum_chart(changed, "a")
    assert made.series[0].points[0] == (1.0, 0.5)
    assert [mark.at for mark in made.marks] == [8.5]
    assert spectrum_chart(kept, "b").marks == ()
    options = {series.name: series for series in options_chart(changed, "a").series}
    assert options["chosen"].points == ((512.0, math.sqrt(1e-4 / 8)),)
    assert options["on offer"].titles[0].startswith("rank 16: 1,024 parameters")


def test_the_distribution_rises_to_what_was_measured(make):
    comparison = make.comparison()
    made = latency_chart(comparison)
    before, after = made.series
    for series in (before, after):
        xs, ys = zip(*series.points, strict=True)
        assert list(xs) == sorted(xs)
        assert list(ys) == sorted(ys)
        assert ys[0] == 0
        assert ys[-1] <= 1
    assert [mark.at for mark in made.marks] == pytest.approx([0.11, 0.11 * 0.82])


def test_replicates_are_shown_with_the_interval(make):
    comparison = make.comparison()
    made = ratio_chart(comparison)
    points = {series.role: series.points for series in made.series}
    assert [y for _, y in points["after"]] == pytest.approx([0.82] * 3, rel=1e-3)
    assert len(points["before"]) == 3
    band = made.marks[1]
    assert (band.low, band.at, band.high) == (comparison.low, comparison.ratio, comparison.high)


def test_a_run_gives_all_its_charts_and_not_too_many(make):
    report = make.lossy()
    names = [made.name for made in charts_of(report)]
    assert names == [
        "error-against-size",
        "site-01-spectrum",
        "site-01-options",
        "site-02-spectrum",
        "site-02-options",
        "latency",
        "ratio",
        "operators",
    ]
    many = make.plan(*(make.site(f"w{n}", None, "") for n in range(40)))
    assert len(list(site_charts(make.changed(report, plan=many)))) == MOST_SITES
    assert list(charts_of(make.empty())) == []


def test_charts_become_files_the_same_each_time(make, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    files = write_png(charts_of(make.lossy()), first)
    assert [path.suffix for path in files] == [".png"] * 8
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in files)
    write_png(charts_of(make.lossy()), second)
    assert all((second / path.name).read_bytes() == path.read_bytes() for path in files)
