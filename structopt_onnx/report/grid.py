"""What a report tells in columns, before it is laid out as text, Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Grid:
    """Rows of text under headers.

    Parameters
    ----------
    headers
        One per column.
    rows
        As long as `headers`.
    numbers
        Indices of the columns aligned to the right.
    whole
        Indices of the columns with names that a line break would spoil.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    whole: tuple[int, ...] = ()

    def first(self, count: int) -> Grid:
        """Return the first rows."""
        return replace(self, rows=self.rows[:count])
