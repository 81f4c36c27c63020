"""Pipeline text: ``name{option=value},name`` to pass objects, and back."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from structopt_onnx.rewriting.passes import Step

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_VALUE = re.compile(r"[^,{}\s=]+")
_BLANK = re.compile(r"\s*")
_TYPES: dict[str, type[bool | float | str]] = {"bool": bool, "int": int, "float": float}
_BOOLEANS = {"true": True, "false": False}


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, message: str, at: int | None = None) -> UsageError:
        position = self.at if at is None else at
        return UsageError(
            f"pipeline, character {position + 1}: {message}\n  {self.text}\n  {' ' * position}^"
        )

    def skip(self) -> None:
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, pattern: re.Pattern[str], what: str) -> tuple[str, int]:
        self.skip()
        found = pattern.match(self.text, self.at)
        if found is None:
            seen = f"'{self.text[self.at]}'" if self.at < len(self.text) else "the end"
            raise self.fail(f"expected {what}, found {seen}")
        start, self.at = self.at, found.end()
        return found.group(), start

    def accept(self, character: str) -> bool:
        self.skip()
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    def ended(self) -> bool:
        self.skip()
        return self.at >= len(self.text)


def whole_pipeline(
    catalogue: Mapping[str, type[Step]], shared: Mapping[str, str]
) -> tuple[Step, ...]:
    """Return every step of a catalogue, with the shared options that it has."""
    return tuple(step(**_shared(step, shared)) for step in catalogue.values())


def _shared(step: type[Step], shared: Mapping[str, str]) -> dict[str, Any]:
    known = {option.name for option in fields(step)}
    return {name: value for name, value in shared.items() if name in known}


def parse_pipeline(
    text: str, catalogue: Mapping[str, type[Step]], shared: Mapping[str, str] | None = None
) -> tuple[Step, ...]:
    """Read pipeline text.

    Parameters
    ----------
    text
        Such as ``share-initializers,factor-matmul{rank_multiple=16}``.
    catalogue
        Step classes by name.
    shared
        Options of the run, such as the target, for the steps that have them; what the text gives
        goes first.

    Raises
    ------
    UsageError
        Pointing at the character where the text stops making sense.
    """
    reader = _Reader(text)
    steps = [_step(reader, catalogue, shared or {})]
    while reader.accept(","):
        steps.append(_step(reader, catalogue, shared or {}))
    if not reader.ended():
        raise reader.fail(f"expected ',' or the end, found '{text[reader.at]}'")
    return tuple(steps)


def _step(reader: _Reader, catalogue: Mapping[str, type[Step]], shared: Mapping[str, str]) -> Step:
    name, start = reader.take(_NAME, "the name of a pass")
    if name not in catalogue:
        raise reader.fail(f"no pass '{name}'; {_meant(name, catalogue, 'there are')}", start)
    step = catalogue[name]
    known = {option.name: option for option in fields(step)}
    options = _options(reader, step, known) if reader.accept("{") else {}
    options = _shared(step, shared) | options
    missing = [f.name for f in known.values() if f.default is MISSING and f.name not in options]
    if missing:
        raise reader.fail(f"'{name}' needs option '{missing[0]}'")
    try:
        return step(**options)
    except ValueError as error:
        raise reader.fail(f"'{name}': {error}", start) from error


def _options(reader: _Reader, step: type[Step], known: Mapping[str, Field[Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    while True:
        key, at = reader.take(_OPTION, "the name of an option")
        if key not in known:
            hint = _meant(key, known, "it has")
            raise reader.fail(f"'{step.name}' has no option '{key}'; {hint}", at)
        if key in options:
            raise reader.fail(f"option '{key}' is given twice", at)
        if not reader.accept("="):
            raise reader.fail(f"expected '=' after '{key}'")
        options[key] = _value(reader, known[key])
        if reader.accept("}"):
            return options
        if not reader.accept(","):
            raise reader.fail("expected ',' or '}'")


def _meant(name: str, known: Iterable[str], lead: str) -> str:
    """Say which name is likely meant, and all of them only where none is near."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    return f"did you mean '{close[0]}'?" if close else f"{lead}: {', '.join(names) or 'none'}"


def _value(reader: _Reader, field: Field[Any]) -> bool | float | str:
    text, at = reader.take(_VALUE, "a value")
    # Not typing.get_type_hints: it needs every name that a pass imports for checkers only.
    wanted = _TYPES.get(getattr(field.type, "__name__", str(field.type)), str)
    try:
        if wanted is bool:
            return _BOOLEANS[text]
        if wanted in (int, float):
            number: float = wanted(text)
            return number
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[wanted]
        raise reader.fail(f"'{field.name}' takes {kind}, found '{text}'", at) from None
    return text


def pipeline_text(steps: Sequence[Step]) -> str:
    """Write steps as pipeline text; `parse_pipeline` reads it back."""
    return ",".join(step.text() for step in steps)
