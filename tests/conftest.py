from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis

if TYPE_CHECKING:
    import pytest

hypothesis.settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-cases", action="store_true", help="rewrite the expected parts of case files"
    )
    parser.addoption(
        "--all-foreign-models",
        action="store_true",
        help="run every model that the onnx package carries, not a sample",
    )
