"""How a command that fails says so: one line on standard error, and its exit code."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import typer

import structopt_onnx
from structopt_onnx.cli.option_names import as_typed
from structopt_onnx.cli.signals import SignalReceived
from structopt_onnx.cli.streams import give_up
from structopt_onnx.errors import InternalError, StructoptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

WRONG_USAGE = 2
CAN_NOT_RUN = 3
INTERNAL = 4
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports of a program that nobody reads any more

# EDQUOT is absent on Windows.
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@runtime_checkable
class _WrongUsage(Protocol):
    """An error of the command line's parser, whichever parser typer brings."""

    exit_code: int

    def format_message(self) -> str: ...


def exit_code_of(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell the user about an error and return the exit code.

    An error nobody raised on purpose is a bug: its traceback goes to a file, which is named.

    Parameters
    ----------
    error
        What ended the command.
    arguments
        The command line, for the traceback's file.
    """
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _say("interrupted", INTERRUPTED)
    if isinstance(error, SignalReceived):
        return _say(str(error), error.exit_code)
    # Typer turns a broken pipe into an exit with 1, which means something else here.
    if isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
        give_up(sys.stdout)
        return BROKEN_PIPE
    if isinstance(error, SystemExit) and _is_the_parser_s(error):
        return int(error.code or 0)
    if isinstance(error, UsageError):
        return _say(f"error: {as_typed(str(error))}", error.exit_code)
    if isinstance(error, StructoptError) and not isinstance(error, InternalError):
        return _say(f"error: {error}", error.exit_code)
    if isinstance(error, OSError) and _is_about_room(error):
        give_up(sys.stdout)
        where = error.filename or "standard output or the folder of temporary files"
        return _say(f"error: {where}: {error.strerror}; make room there", WRONG_USAGE)
    if isinstance(error, _WrongUsage):
        # Some versions of typer pass pydantic's own words on.
        message = error.format_message().replace("Value error, ", "")
        return _say(f"error: {message} {_hint(error)}", error.exit_code)
    if isinstance(error, MemoryError):
        return _say("error: out of memory; try fewer or smaller samples", CAN_NOT_RUN)
    what = str(error) if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
    first = what.strip().splitlines()[0] if what.strip() else type(error).__name__
    return _say(f"error: internal error: {first}; {_write_down(error, arguments)}", INTERNAL)


def _say(text: str, code: int) -> int:
    # Names from a model's file must not steer the terminal; a pipeline's caret needs its lines.
    safe = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    try:
        typer.echo(safe, err=True)
    except OSError:  # nobody is there to be told, but the exit code still counts
        give_up(sys.stderr)
    return code


def _is_the_parser_s(error: SystemExit) -> bool:
    """Whether the parser ended the program, as it does after completion, not a user's function."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] in {"typer", "click"}


def _is_about_room(error: OSError) -> bool:
    """Whether a file could not be written: nothing that this program could do about."""
    # The module tempfile says in words that no folder takes its files.
    lack = str(error.strerror).startswith("No usable temporary directory")
    return lack or error.errno in _NO_ROOM


def _hint(error: object) -> str:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", None) or "structopt-onnx"
    return f"(see '{path} --help')"


def _write_down(error: BaseException, arguments: Sequence[str]) -> str:
    """Save what a maintainer needs to see the bug; say where."""
    text = "\n".join(
        (
            f"version {structopt_onnx.__version__}, Python {platform.python_version()}",
            platform.platform(),
            f"structopt-onnx {shlex.join(arguments)}",
            "",
            *traceback.format_exception(error),
        )
    )
    try:
        descriptor, path = tempfile.mkstemp(prefix="structopt-onnx-error-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as problem:
        return f"the traceback could not be saved ({problem})"
    return f"command line and traceback are in {path}"
