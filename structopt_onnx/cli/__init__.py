"""The command line: `main` runs one command and returns its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from structopt_onnx.cli.app import NAME, app
from structopt_onnx.cli.failures import INTERRUPTED, exit_code_of
from structopt_onnx.cli.signals import ending_signals_raised
from structopt_onnx.cli.streams import is_open, prepare

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
        4 internal error; 129 hung up, 130 interrupted, 141 nobody reads the output,
        143 terminated.
    """
    prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with ending_signals_raised():
            # Without standalone mode errors come out as exceptions, exit codes as results.
            code = app(words, prog_name=NAME, standalone_mode=False)
            if code == INTERRUPTED:  # typer's result of a KeyboardInterrupt
                raise KeyboardInterrupt  # noqa: TRY301 - said where every other end is
            if is_open(sys.stdout):
                sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - every way to end has its exit code
        return exit_code_of(error, words)
    return int(code or 0)
