"""Standard streams that are closed, full or read by nobody."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_STANDARD = 2  # the highest descriptor of a standard stream


def prepare() -> None:
    """Make the streams ready for any text, and keep files off the descriptors of closed ones.

    A model written to descriptor 1 or 2 would also get what libraries print.
    """
    with suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor <= _STANDARD:
            descriptor = os.open(os.devnull, os.O_RDWR)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        # Names in a model may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_open(stream: TextIO | None) -> bool:
    """Whether there is such a stream: Python has None for one that was closed at the start."""
    return stream is not None


def give_up(stream: TextIO | None) -> None:
    """Send what waits to be written to nowhere, so that it can't fail again at the very end."""
    if stream is None:
        return
    with suppress(OSError, ValueError):  # it may have no descriptor, or be closed by now
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
