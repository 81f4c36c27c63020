"""What a command writes: its result to standard output, its progress to a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from structopt_onnx.cli.streams import give_up, is_open
from structopt_onnx.errors import UsageError
from structopt_onnx.report.json import to_json
from structopt_onnx.report.layout import to_text

if TYPE_CHECKING:
    from rich.console import RenderableType

Say = Callable[[str], None]

_COUNTED = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Terminal:
    """Where one command's words go.

    Parameters
    ----------
    json
        Write results as JSON.
    quiet
        Write no text and show no progress.

    Raises
    ------
    UsageError
        When there is something to write, and standard output is closed.
    """

    json: bool
    quiet: bool

    def __post_init__(self) -> None:
        """Find out before the long work begins."""
        if (self.json or not self.quiet) and not is_open(sys.stdout):
            raise UsageError("standard output is closed; redirect it, or give --quiet")

    def tell(self, record: object, render: Callable[[], RenderableType]) -> None:
        """Write a result.

        Parameters
        ----------
        record
            What JSON is made of.
        render
            Makes the text; called only when text is wanted.

        Raises
        ------
        UsageError
            When standard output can't be written.
        """
        if self.quiet and not self.json:
            return
        text = to_json(record) if self.json else render()
        try:
            _write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            give_up(sys.stdout)
            raise UsageError(
                f"standard output can't be written ({error.strerror}), and the result was to go "
                "there; redirect it elsewhere"
            ) from error

    @contextmanager
    def progress(self, title: str) -> Iterator[Say]:
        """Show that something is going on while the block runs; only on a terminal.

        Yields
        ------
        Callable
            Takes a line about what happens now; ``3/40`` in it moves the bar.
        """
        console = _console_on(sys.stderr)
        if self.quiet or not is_open(sys.stderr) or not console.is_terminal:
            yield lambda _: None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)

            def say(text: str) -> None:
                counted = _COUNTED.search(text)
                done, total = counted.groups() if counted else (0, None)
                bar.update(
                    task,
                    description=f"{title}: {_printable(text)}",
                    completed=int(done),
                    total=None if total is None else int(total),
                )

            yield say


def _write(text: RenderableType) -> None:
    console = _console_on(sys.stdout)
    if isinstance(text, str):
        sys.stdout.write(text)
    elif console.is_terminal:
        console.print(text)
    else:
        sys.stdout.write(to_text(text))
    sys.stdout.flush()


def _console_on(stream: TextIO) -> Console:
    """Make a console that reads nothing in a text as markup."""
    return Console(file=stream, markup=False, emoji=False, highlight=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
