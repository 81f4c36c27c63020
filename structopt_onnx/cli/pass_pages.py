"""What a pass says of itself: name, promise, options, refusals, and its module's text."""

from __future__ import annotations

import inspect
import sys
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structopt_onnx.rewriting.passes import Step

_OWN = "structopt_onnx"


@dataclass(frozen=True)
class PassOption:
    """One option of a pass, all as text."""

    name: str
    type: str
    default: str
    text: str


@dataclass(frozen=True)
class PassPage:
    """One pass.

    Attributes
    ----------
    name, exactness
        As in the catalogue.
    package
        The package that it comes from, None for this one.
    summary
        Its first line.
    text
        The rest of its text.
    options
        In the order of its fields.
    refusals
        Meaning by code.
    """

    name: str
    exactness: str
    package: str | None
    summary: str
    text: str
    options: tuple[PassOption, ...]
    refusals: Mapping[str, str]


def pages() -> list[PassPage]:
    """Return the pages of all passes in run order, those of other packages last."""
    from structopt_onnx.passes import catalogue  # noqa: PLC0415 - imports onnx

    return [page_of(step) for step in catalogue().values()]


def page_of(step: type[Step]) -> PassPage:
    """Collect the page of one pass; its module's docstring is its text."""
    module = sys.modules[step.__module__]
    text = inspect.cleandoc(module.__doc__ or step.__doc__ or "")
    summary, _, rest = text.partition("\n")
    package = step.__module__.partition(".")[0]
    return PassPage(
        name=step.name,
        exactness=step.exactness.value,
        package=None if package == _OWN else package,
        summary=summary.removeprefix(f"{step.name}:").strip(),
        text=rest.strip("\n"),
        options=_options(step),
        refusals=dict(getattr(step, "refusals", {})),
    )


def _options(step: type[Step]) -> tuple[PassOption, ...]:
    meanings = _parameters(inspect.cleandoc(step.__doc__ or ""))
    return tuple(
        PassOption(
            field.name,
            field.type if isinstance(field.type, str) else field.type.__name__,
            "(required)" if field.default is MISSING else _literal(field.default),
            meanings.get(field.name, ""),
        )
        for field in (fields(step) if is_dataclass(step) else ())
    )


def _literal(value: object) -> str:
    # As pipeline text writes it.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(text: str) -> dict[str, str]:
    """Read the section "Parameters" of a numpydoc text: descriptions by name."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    inside = False
    lines = text.splitlines()
    for row, after in zip(lines, [*lines[1:], ""], strict=True):
        if after and set(after) == {"-"}:
            inside = row.strip() == "Parameters"
            names = []
        elif not inside or (row and set(row) == {"-"}):
            continue
        elif row and not row.startswith(" "):
            names = [word.strip() for word in row.partition(" : ")[0].split(",")]
        elif row.strip():
            for each in names:
                found.setdefault(each, []).append(row.strip())
    return {each: " ".join(parts) for each, parts in found.items()}
