from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from structopt_onnx.api import measured_costs

if TYPE_CHECKING:
    from collections.abc import Iterator

hypothesis.settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def _predicted_times(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let plans rest on predicted times: measured ones differ from run to run.

    Where a test measures, or the program runs as a process, the user's cache stays out of it.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measured_costs, "MEASURABLE", frozenset())
        patched.setenv("STRUCTOPT_ONNX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-cases", action="store_true", help="rewrite the expected parts of case files"
    )
    parser.addoption(
        "--slow-exports",
        action="store_true",
        help="export loops of 200 steps by torch's dynamo, minutes each",
    )
    parser.addoption(
        "--all-foreign-models",
        action="store_true",
        help="run every model that the onnx package carries, not a sample",
    )
    parser.addoption(
        "--front-ends",
        action="store_true",
        help="export models from the heavy front ends that are installed: Keras, JAX, Paddle, ...",
    )
