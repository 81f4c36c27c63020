from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import given

from structopt_onnx.errors import UsageError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup, Pass
from structopt_onnx.rewriting.pipeline import parse_pipeline, pipeline_text


@dataclass(frozen=True)
class Turn(Pass):
    name: ClassVar[str] = "turn"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    often: int = 3
    far: float = 0.5
    back: bool = False
    label: str = "none"

    def propose(self, scope, facts):
        return iter(())


@dataclass(frozen=True)
class Strict(Pass):
    name: ClassVar[str] = "strict-one"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    size: int
    limit: int = 8

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size is negative")

    def propose(self, scope, facts):
        return iter(())


@dataclass(frozen=True)
class Sweep(Cleanup):
    name: ClassVar[str] = "sweep"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model):
        pass


_CATALOGUE = {"turn": Turn, "strict-one": Strict, "sweep": Sweep}
_LABELS = st.from_regex(r"[^,{}\s=]+", fullmatch=True)
_STEPS = st.one_of(
    st.just(Sweep()),
    st.builds(Strict, st.integers(0, 10**9), st.integers()),
    st.builds(Turn, st.integers(), st.floats(allow_nan=False), st.booleans(), _LABELS),
)


@given(st.lists(_STEPS, min_size=1, max_size=5))
def test_steps_survive_the_way_through_text(steps):
    assert parse_pipeline(pipeline_text(steps), _CATALOGUE) == tuple(steps)


@given(st.text("turnswep-o{}=,; 0123.e\n", max_size=30))
def test_any_text_is_a_pipeline_or_a_usage_error(text: str):
    try:
        steps = parse_pipeline(text, _CATALOGUE)
    except UsageError as error:
        described = str(error)
    else:
        assert parse_pipeline(pipeline_text(steps), _CATALOGUE) == steps
        return
    assert described.startswith("pipeline, character")


def test_blanks_do_not_matter():
    text = " turn { often = 4 , back = true } ,\n sweep "
    assert parse_pipeline(text, _CATALOGUE) == (Turn(often=4, back=True), Sweep())


def test_defaults_are_not_written():
    assert pipeline_text([Turn(), Turn(far=1e-5), Sweep()]) == "turn,turn{far=1e-05},sweep"


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 1, "expected the name of a pass, found the end"),
        ("Turn", 1, "expected the name of a pass, found 'T'"),
        ("turn,", 6, "expected the name of a pass, found the end"),
        ("turn,,sweep", 6, "expected the name of a pass, found ','"),
        ("sweep,trun", 7, "no pass 'trun'; did you mean 'turn'?"),
        ("strictone", 1, "no pass 'strictone'; did you mean 'strict-one'?"),
        ("sweep,bend", 7, "no pass 'bend'; there are: turn, strict-one, sweep"),
        ("turn sweep", 6, "expected ',' or the end, found 's'"),
        ("turn{}", 6, "expected the name of an option, found '}'"),
        ("turn{oftn=3}", 6, "'turn' has no option 'oftn'; did you mean 'often'?"),
        ("turn{q=3}", 6, "'turn' has no option 'q'; it has: often, far, back, label"),
        ("sweep{a=1}", 7, "'sweep' has no option 'a'; it has: none"),
        ("turn{often}", 11, "expected '=' after 'often'"),
        ("turn{often=}", 12, "expected a value, found '}'"),
        ("turn{often=x}", 12, "'often' takes a whole number, found 'x'"),
        ("turn{often=1.5}", 12, "'often' takes a whole number, found '1.5'"),
        ("turn{far=x}", 10, "'far' takes a number, found 'x'"),
        ("turn{back=yes}", 11, "'back' takes true or false, found 'yes'"),
        ("turn{often=1,often=2}", 14, "option 'often' is given twice"),
        ("turn{often=1", 13, "expected ',' or '}'"),
        ("turn{often=1 far=2}", 14, "expected ',' or '}'"),
        ("sweep,strict-one", 17, "'strict-one' needs option 'size'"),
        ("sweep,strict-one{size=-1}", 7, "'strict-one': size is negative"),
    ],
)
def test_errors_point_at_the_character(text: str, at: int, message: str):
    with pytest.raises(UsageError) as caught:
        parse_pipeline(text, _CATALOGUE)
    first, shown, arrow = str(caught.value).split("\n")
    assert first == f"pipeline, character {at}: {message}"
    assert shown == f"  {text}"
    assert arrow == " " * (at + 1) + "^"
