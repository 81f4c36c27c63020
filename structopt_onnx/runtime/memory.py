"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def return_freed() -> None:
    """Ask the C library to give back what was freed; does nothing where it can't be asked.

    glibc keeps freed blocks that lie below one still in use, of up to 32 MB each: the weights of
    closed sessions and the work space of decompositions stay resident, 130 MB on a model of 90 MB
    (``malloc_trim(3)``).
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
