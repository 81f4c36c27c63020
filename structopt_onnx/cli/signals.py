"""Signals that end a program: they are raised, as Ctrl-C is, so that temporary files go."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Windows has no SIGHUP.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# A terminal that closes may send several: none but the first may interrupt the cleaning up.
_DEAF_SECONDS = 5.0


class SignalReceived(BaseException):
    """A signal asked this program to end; no error, as `KeyboardInterrupt` is none.

    Parameters
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports of a program that the signal has ended."""
        return 128 + self.number

    def __str__(self) -> str:
        """Return what the signal says."""
        return "terminated" if self.number == signal.SIGTERM else "hung up"


@contextmanager
def ending_signals_raised() -> Iterator[None]:
    """Raise `SignalReceived` in the block when the program is asked to end.

    Signals that are ignored, as `nohup` wants it, or handled by somebody else stay as they are.
    """
    last = -_DEAF_SECONDS

    def received(number: int, frame: FrameType | None) -> None:
        del frame
        nonlocal last
        now = time.monotonic()
        if now - last >= _DEAF_SECONDS:
            last = now
            raise SignalReceived(number)

    own = []
    # Python lets no other thread set handlers.
    if threading.current_thread() is threading.main_thread():
        own = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in own:
        signal.signal(number, received)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, signal.SIG_DFL)
