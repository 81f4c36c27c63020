"""The command line: `main` runs one command and returns its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from structopt_onnx.cli.app import NAME, app
from structopt_onnx.cli.failures import INTERRUPTED, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        Words after the program's name; None takes them from `sys.argv`.

    Returns
    -------
    int
        0 done, 1 validation failed, 2 wrong usage, 3 a model or data can't be read or run,
        4 internal error, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names in a model may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Without standalone mode errors come out as exceptions, exit codes as results.
        code = app(words, prog_name=NAME, standalone_mode=False)
        if code == INTERRUPTED:  # typer's result of a KeyboardInterrupt
            raise KeyboardInterrupt  # noqa: TRY301 - said where every other end is
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - every way to end has its exit code
        return exit_code_of(error, words)
    return int(code or 0)
