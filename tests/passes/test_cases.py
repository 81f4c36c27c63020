from __future__ import annotations

from pathlib import Path

import pytest
from cases import check, read_case, run_case

_CASES = sorted(Path(__file__).parent.glob("*/*.onnxtxt"))


@pytest.mark.parametrize("path", _CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path, pytestconfig: pytest.Config):
    case = read_case(path)
    assert case.step.name == path.parent.name
    check(run_case(case), update=pytestconfig.getoption("--update-cases"))
