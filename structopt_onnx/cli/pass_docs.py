"""Pages of the passes as Markdown files, made of what the passes say of themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from structopt_onnx.cli.pass_pages import PassPage

INDEX = "README.md"
_HEADING = re.compile(r"^\w[\w ]*$")
_CODE_OR_LESS = re.compile(r"(`+[^`]+`+)|<")
_INDENT = " " * 4
_NOTE = "<!-- made by `structopt-onnx passes --docs`; edit the pass instead -->"


def write_docs(pages: Sequence[PassPage], folder: Path) -> list[Path]:
    """Write a file per pass, and one that lists them in run order.

    Parameters
    ----------
    pages
        Of all passes, in run order.
    folder
        Where to; made if need be.

    Raises
    ------
    UsageError
        When the folder can't be written.
    """
    texts = {f"{page.name}.md": page_text(page) for page in pages}
    texts[INDEX] = index_text(pages)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: the pages can't be written: {error.strerror}") from error
    return [folder / name for name in texts]


def page_text(page: PassPage) -> str:
    """Write one pass as Markdown."""
    return "\n".join(_page(page)) + "\n"


def index_text(pages: Sequence[PassPage]) -> str:
    """List passes in run order."""
    rows = [
        f"| [`{page.name}`]({page.name}.md) | {page.exactness} | {_cell(page.summary)} |"
        for page in pages
    ]
    head = "| pass | exactness | does |", "|---|---|---|"
    return "\n".join((_NOTE, "# Passes in run order", "", *head, *rows)) + "\n"


def _page(page: PassPage) -> Iterator[str]:
    yield from (_NOTE, f"# {page.name}", "")
    yield f"*{page.exactness}*: {_plain(page.summary)}"
    yield ""
    for line in page.text.splitlines():
        if _HEADING.match(line):
            yield f"## {line}"
            yield ""
        else:
            yield _plain(line.removeprefix(_INDENT))
    if page.options:
        yield from ("", "## Options", "", "| option | type | default | meaning |")
        yield "|---|---|---|---|"
        for option in page.options:
            default = f"`{option.default}`" if option.default else ""
            yield f"| `{option.name}` | {option.type} | {default} | {_cell(option.text)} |"
        yield from ("", f"As pipeline text: `--passes '{_example(page)}'`.")
    if page.refusals:
        yield from ("", "## Refusals", "", "| code | meaning |", "|---|---|")
        for code, meaning in page.refusals.items():
            yield f"| `{code}` | {_cell(meaning)} |"


def _example(page: PassPage) -> str:
    given = ",".join(f"{option.name}={option.default}" for option in page.options)
    return f"{page.name}{{{given}}}"


def _cell(text: str) -> str:
    return _plain(text).replace("|", r"\|")


def _plain(text: str) -> str:
    """Keep Markdown from reading a comparison as HTML, except in code, where it does not."""
    return _CODE_OR_LESS.sub(lambda found: found[1] or "&lt;", text)
