"""The files that a command writes: what can be said of them before the long work begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.report.extra import require
from structopt_onnx.report.writing import check_form

if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_dash(path: Path) -> None:
    """Refuse what other programs read as standard output: a model needs a file.

    Raises
    ------
    UsageError
        When the path is ``-``.
    """
    if str(path) == "-":
        raise UsageError("-: a model is not written to standard output; name a file, or ./-")


def read_files(recipe: str | None, calibration: str | None) -> tuple[Path, ...]:
    """Return the files that options name to read from, the presets of recipes aside."""
    from structopt_onnx.api.recipe import PRESETS  # noqa: PLC0415 - not for --help

    return tuple(Path(name) for name in (recipe, calibration) if name and name not in PRESETS)


def check_recipe(path: Path | None, *others: Path) -> None:
    """Refuse a recipe that could not be written, before the long work begins.

    Parameters
    ----------
    path
        Where the recipe shall go.
    others
        Files of the same command that it must not replace.

    Raises
    ------
    UsageError
        When it is a folder, lies in none, or is one of the others.
    """
    if path is None:
        return
    _check_place(path, others, "--write-recipe")


def check_reports(paths: Iterable[Path], *others: Path) -> None:
    """Refuse reports that could not be written, before the long work begins.

    Parameters
    ----------
    paths
        Where the reports shall go.
    others
        Files of the same command that they must not replace.

    Raises
    ------
    UsageError
        When one is a folder, lies in none, is one of the others, is ``-``, has no known form, or
        needs what is not installed.
    """
    for path in paths:
        if str(path) == "-":
            raise UsageError("-: --report needs a file; for standard output give --json")
        _check_place(path, others, "--report")
        check_form(path)


def check_plots(folder: Path | None) -> None:
    """Refuse a folder for plots that could not be written, before the long work begins.

    Raises
    ------
    UsageError
        When it is a file, lies in no folder, or matplotlib is not installed.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: --plots needs a folder, and this is a file")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder}: no such folder for --plots")
    require("matplotlib", "plots")


def _check_place(path: Path, others: Iterable[Path], option: str) -> None:
    """Refuse a file that can't be written where an option says, or is one of the others."""
    if path.is_dir():
        raise UsageError(f"{path}: {option} needs a file, and this is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: no such folder for {option}")
    if any(path.resolve() == other.resolve() for other in others):
        raise UsageError(f"{path}: {option} would replace another file of this command")
