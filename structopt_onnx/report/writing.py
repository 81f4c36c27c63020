"""Reports as files, in the form that the file's name asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.model.whole_file import write_whole
from structopt_onnx.report.extra import require
from structopt_onnx.report.json import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structopt_onnx.report.provider_grid import ProviderRow
    from structopt_onnx.report.record import Report

_HTML = {".html", ".htm"}
_MARKDOWN = {".md", ".markdown"}
_JSON = {".json", ""}


def check_form(path: Path) -> None:
    """Refuse a file whose form is not known, or can't be made here.

    Raises
    ------
    UsageError
        For another suffix, or where the extra `report` is missing.
    """
    suffix = path.suffix.lower()
    if suffix in _HTML:
        require("jinja2", "HTML reports")
    elif suffix not in _MARKDOWN | _JSON:
        raise UsageError(f"{path}: reports are .html, .md or .json, not {suffix}")


def write_report(path: Path, report: Report, providers: Sequence[ProviderRow] = ()) -> Path:
    """Write a report as HTML, Markdown or JSON, by the suffix of the file.

    Parameters
    ----------
    path
        Where to; without a suffix JSON is written.
    report
        The record of a run.
    providers
        What is known of the models on execution providers; not in the JSON.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        When its form is not known or needs the extra `report`, or the file can't be written.
    """
    check_form(path)
    suffix = path.suffix.lower()
    if suffix in _HTML:
        from structopt_onnx.report.html.page import render_html  # noqa: PLC0415 - when wanted

        text = render_html(report, providers)
    elif suffix in _MARKDOWN:
        from structopt_onnx.report.markdown import render_markdown  # noqa: PLC0415 - likewise

        text = render_markdown(report, providers)
    else:
        text = to_json(report)
    return write_text(path, text)


def write_text(path: Path, text: str) -> Path:
    """Write a rendered report, or a recipe; see `write_whole`.

    Raises
    ------
    UsageError
        When the file can't be written.
    """
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror}") from error
    return path


def write_plots(folder: Path, report: Report) -> list[Path]:
    """Draw everything that a report can show into PNG files, in a folder made if need be.

    Raises
    ------
    UsageError
        When the extra `report` is missing, or the folder can't be written.
    """
    from structopt_onnx.report.charts.of_run import charts_of  # noqa: PLC0415 - when wanted
    from structopt_onnx.report.charts.png import write_png  # noqa: PLC0415 - likewise

    try:
        folder.mkdir(exist_ok=True)
        return write_png(charts_of(report), folder)
    except OSError as error:
        raise UsageError(f"{folder}: plots can't be written: {error.strerror}") from error
