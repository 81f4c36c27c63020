from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structopt_onnx.report.json import plain, to_json
from structopt_onnx.report.record import SCHEMA, Report

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_a_report_has_its_fields_as_keys_and_each_is_documented(make):
    found = json.loads(to_json(make.lossy()))
    assert set(found) == {field.name for field in fields(Report)} | {"caveats"}
    assert found["schema"] == SCHEMA
    assert all(f"``{key}``" in to_json.__doc__ for key in found)


def test_what_to_doubt_is_in_it_too(make):
    blocks = replace(make.lossy().samples, by_source=False)
    report = replace(make.lossy(), samples=blocks, warnings=("few samples",))
    found = json.loads(to_json(report))["caveats"]
    assert found[0] == "few samples"
    assert any("the parts are contiguous blocks" in line for line in found[1:])
    made_up = replace(blocks, synthetic=True)
    found = json.loads(to_json(replace(report, samples=made_up)))["caveats"]
    assert any("measured on synthetic inputs" in line for line in found)


def test_verdicts_and_details_are_in_it(make):
    found = json.loads(to_json(make.lossy()))
    assert found["validation"]["passed"] is True
    assert found["validation"]["shipped"]["outputs"][0]["error"] == 0.043
    assert found["plan"]["sites"][0]["chosen"] == "rank 8"
    assert [len(site["options"]) for site in found["plan"]["sites"]] == [2, 2]
    assert found["applied"][1]["replaced"] == ["h"]
    assert found["refused"][2]["refusal"]["code"] == "does-not-pay"
    assert found["after"]["cost"]["macs"] == 315648


def test_equal_reports_give_equal_text_whatever_the_order_of_their_mappings(make):
    report = make.lossy()
    turned = replace(report, options=dict(reversed(report.options.items())))
    assert list(turned.options) != list(report.options)
    assert to_json(turned) == to_json(report)


def test_a_failed_validation_says_so(make):
    broken = make.validation({"y": math.inf}, 0.05, ("output 'y': wrong",))
    found = json.loads(to_json(replace(make.lossy(), validation=broken)))
    assert found["validation"]["passed"] is False
    assert found["validation"]["failures"][0] == "output 'y': wrong"
    assert found["validation"]["shipped"]["outputs"][0]["relative_l2"] is None


@given(VALUES)
def test_any_value_becomes_strict_json(value):
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(to_json({"value": value}), parse_constant=refuse)["value"]
    assert found == plain(value)


@given(st.floats())
def test_numbers_survive_unless_json_lacks_them(number):
    found = plain(number)
    if math.isfinite(number):
        assert found == number
        assert math.copysign(1, found) == (math.copysign(1, number) if number else 1)
    else:
        assert found is None


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    parts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.parts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        (Colour.RED, "red"),
        (Path("folder") / "file", str(Path("folder") / "file")),
        ({2, 1, 3}, [1, 2, 3]),
        ({1: "a", None: "b", Colour.RED: "c"}, {"1": "a", "null": "b", "red": "c"}),
        (Thing((1, 2)), {"parts": [1, 2], "total": 3}),
        (Thing, f"{__name__}.Thing"),
        (object(), "builtins.object"),
        (math.sqrt, "math.sqrt"),
    ],
)
def test_what_is_not_json_gets_a_stable_form(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_other_records_get_the_version_too():
    assert json.loads(to_json(Thing((1, 2)))) == {"parts": [1, 2], "total": 3, "schema": SCHEMA}


def test_only_records_are_written():
    with pytest.raises(TypeError, match="not list"):
        to_json([1, 2])
