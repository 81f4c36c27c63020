"""A report in a notebook: the page in a frame of its own, which shares no style with it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.report.html.page import render_html

if TYPE_CHECKING:
    from structopt_onnx.report.record import Report

_HEIGHT = 720


def framed(report: Report) -> str:
    """Return the page in an ``iframe``; the plain text where the extra `report` is missing."""
    try:
        page = render_html(report)
    except UsageError:
        return f"<pre>{escape(str(report))}</pre>"
    style = f"width:100%;height:{_HEIGHT}px;border:0"
    return f'<iframe sandbox srcdoc="{escape(page)}" style="{style}"></iframe>'
