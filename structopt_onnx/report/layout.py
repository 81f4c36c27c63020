"""What text reports are laid out with: sections, tables, lists, and their plain form."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from structopt_onnx.report.figures import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from structopt_onnx.report.grid import Grid

WIDTH = 100
"""Characters per line where there is no terminal to ask."""


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    whole: Iterable[int] = (),
) -> Table:
    """Lay out rows in columns.

    Parameters
    ----------
    headers
        One per column.
    rows
        Cells as text; nothing in them is read as markup.
    numbers
        Indices of the columns aligned to the right.
    whole
        Indices of the columns whose cells are never broken.
    """
    right = set(numbers)
    unbroken = right | set(whole)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, header in enumerate(headers):
        aligned = index in right
        grid.add_column(
            header,
            justify="right" if aligned else "left",
            no_wrap=index in unbroken,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(Text(shown(cell)) for cell in row))
    return grid


def table_of(grid: Grid) -> Table:
    """Lay out a grid."""
    return table(grid.headers, grid.rows, grid.numbers, grid.whole)


def section(title: str, *body: RenderableType) -> Group:
    """Put a heading over indented parts, and an empty line before it."""
    return Group(
        Text(), Text(shown(title), style="bold"), *(Padding(b, (0, 0, 0, 2)) for b in body)
    )


def line(text: str, style: str = "") -> Text:
    """Write one paragraph, whatever characters it holds."""
    return Text(shown(text), style=style, overflow="fold")


def bullets(lines: Iterable[str]) -> Group:
    """List lines, wrapped under themselves."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for text in lines:
        grid.add_row("-", line(text))
    return Group(grid)


def details(rows: Iterable[tuple[str, str]]) -> Table:
    """Put words beside their paragraphs."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for word, text in rows:
        grid.add_row(line(word, "dim"), line(text))
    return grid


def to_text(renderable: RenderableType, width: int = WIDTH) -> str:
    """Render without colours, as wide as `width`, without spaces at the ends of lines."""
    stream = io.StringIO()
    # No terminal is asked for anything, so the same record gives the same text everywhere.
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False,
        markup=False, emoji=False, highlight=False, _environ={},
    )  # fmt: skip
    console.print(renderable)
    return "\n".join(row.rstrip() for row in stream.getvalue().splitlines()).strip("\n") + "\n"
