"""The command `passes`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding

from structopt_onnx.cli import options  # noqa: TC001 - typer reads annotations
from structopt_onnx.cli.pass_docs import write_docs
from structopt_onnx.cli.pass_pages import PassPage, pages
from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.errors import UsageError
from structopt_onnx.report.layout import details, line, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import typer
    from rich.console import RenderableType

_EPILOG = """\b
Examples:
  structopt-onnx passes
  structopt-onnx passes factor-matmul
  structopt-onnx passes --json | jq -r '.passes[].name'
  structopt-onnx passes --quiet --docs docs/passes
"""


def passes(
    name: options.PassName = None,
    *,
    docs: options.DocsFolder = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
) -> None:
    """List the passes in the order they run.

    What they do, their options, and why they leave sites alone. Passes that other installed
    packages offer are listed last. --docs writes a page per pass as Markdown. --seed and --threads
    change nothing here.
    """
    del seed, threads
    found = pages()
    if docs is not None:
        write_docs([page for page in found if page.package is None], docs)
    if name is not None:
        found = [_named(name, found)]
    Terminal(json, quiet).tell(
        {"passes": found},
        lambda: Group(*(_short(found) if name is None else _full(found[0]))),
    )


def _named(wanted: str, found: Sequence[PassPage]) -> PassPage:
    for page in found:
        if page.name == wanted:
            return page
    names = [page.name for page in found]
    close = get_close_matches(wanted, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"
    raise UsageError(f"no pass '{wanted}'; {hint}")


def _short(found: Sequence[PassPage]) -> Iterator[RenderableType]:
    for page in found:
        origin = "" if page.package is None else f", from {page.package}"
        yield line(f"{page.name} ({page.exactness}{origin})", "bold")
        rows = [("does", page.summary)]
        if page.options:
            given = ",".join(f"{option.name}={option.default}" for option in page.options)
            rows.append(("options", given))
        if page.refusals:
            rows.append(("refuses", ", ".join(page.refusals)))
        yield Padding(details(rows), (0, 0, 0, 2))


def _full(page: PassPage) -> Iterator[RenderableType]:
    yield line(f"{page.name}: {page.summary}", "bold")
    yield line("")
    yield from (line(text) for text in page.text.splitlines())
    if page.options:
        rows = [(o.name, o.type, o.default, o.text) for o in page.options]
        yield section("Options", table(("name", "type", "default", "meaning"), rows))
    if page.refusals:
        yield section("Refusals", table(("code", "meaning"), list(page.refusals.items())))


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(passes)
