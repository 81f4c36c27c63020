"""The files that a command writes: what can be said of them before the long work begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.report.json import to_json

if TYPE_CHECKING:
    from pathlib import Path


def refuse_dash(path: Path) -> None:
    """Refuse what other programs read as standard output: a model needs a file.

    Raises
    ------
    UsageError
        When the path is ``-``.
    """
    if str(path) == "-":
        raise UsageError("-: a model is not written to standard output; name a file, or ./-")


def checked(path: Path | None, *others: Path) -> Path | None:
    """Refuse a report that could not be written, before the long work begins.

    Parameters
    ----------
    path
        Where the report shall go.
    others
        Files of the same command that it must not replace.

    Raises
    ------
    UsageError
        When it is a folder, lies in none, is one of the others, or is ``-``.
    """
    if path is None:
        return None
    if str(path) == "-":
        raise UsageError("-: --report needs a file; for standard output give --json")
    if path.is_dir():
        raise UsageError(f"{path}: --report needs a file, and this is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: no such folder for --report")
    if any(path.resolve() == other.resolve() for other in others):
        raise UsageError(f"{path}: --report would replace the model")
    return path


def write(path: Path, record: object) -> None:
    """Write a record as JSON.

    Raises
    ------
    UsageError
        When the file can't be written.
    """
    try:
        path.write_text(to_json(record), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: the report can't be written: {error.strerror}") from error
