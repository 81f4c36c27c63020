"""Lines about what a run does now: to whoever listens, and to the package's logger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOGGER = logging.getLogger("structopt_onnx")


def logged(progress: Callable[[str], None]) -> Callable[[str], None]:
    """Return a listener that also hands each line to the logger ``structopt_onnx``, as INFO."""

    def say(text: str) -> None:
        _LOGGER.info("%s", text)
        progress(text)

    return say
