from __future__ import annotations

import sys

import pytest

from structopt_onnx.calibration.functions import is_function, load_function
from structopt_onnx.errors import UsageError


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_it.py").write_text("FACTOR = 3\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from beside_it import FACTOR\n"
        "@dataclass\nclass Pair:\n    a: int\n"
        "def triple(x):\n    return Pair(FACTOR * x).a\n"
        "constant = 3\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    yield tmp_path
    sys.modules.pop("beside_it", None)


@pytest.mark.parametrize("place", ["mine", "mine.py", "./mine.py", "{folder}/mine.py"])
def test_a_function_is_found_in_a_module_or_a_file(written, place):
    text = f"{place.format(folder=written)}:triple"
    before = list(sys.path)
    assert is_function(text)
    assert load_function(text, "do it")(4) == 12
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("absent.py:f", "absent.py:f: no such file, and no file absent.py"),
        ("nowhere_at_all:f", "no module named nowhere_at_all"),
        ("mine.py:absent", "mine.py has no function absent; it must do it"),
        ("mine.py:constant", "mine.py has no function constant"),
        ("broken.py:f", "broken.py:f: import failed: ZeroDivisionError: division by zero"),
        ("no function", "'no function' is neither module:function nor file.py:function"),
    ],
)
@pytest.mark.usefixtures("written")
def test_what_is_no_function_is_a_usage_error(text, said):
    with pytest.raises(UsageError) as caught:
        load_function(text, "do it")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_that_name_comes_first(written):
    (written / "mine:triple").write_text("")
    assert not is_function("mine:triple")
    assert not is_function("data.npz")
