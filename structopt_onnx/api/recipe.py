"""Recipes: the options of a run as a flat TOML table, read, checked and written."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx import __version__
from structopt_onnx.api.metric import TaskMetric
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PRESETS: dict[str, dict[str, Any]] = {
    "safe": {},
    "balanced": {"max_error": 0.02, "minimize": "time"},
    "small": {"max_error": 0.05, "minimize": "bytes", "sparse_format": "auto"},
}
"""Recipes that need no file; ``safe`` leaves everything at its default: exact passes only."""

_KINDS: dict[str, type] = {
    "calibration": str,
    "passes": str,
    "max_error": float,
    "metric": str,
    "max_drop": float,
    "keep": str,
    "refit": bool,
    "recover": bool,
    "recover_minutes": float,
    "minimize": str,
    "tolerate": float,
    "sparse_format": str,
    "target": str,
    "only": tuple,
    "skip": tuple,
    "seed": int,
    "threads": int,
    "benchmark": bool,
    "benchmark_seconds": float,
    "cost_seconds": float,
    "time_limit": float,
    "max_memory": int,
    "libraries": tuple,
    "allow_synthetic": bool,
    "fuel": int,
    "external_data": bool,
}
_WORDS = {
    str: "a string",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    tuple: "a list of strings",
}
_ANY = "|".join(_KINDS)
_KEYS = re.compile(rf"^(?:{_ANY})\b|(?<= needs )(?:{_ANY})\b")
# TOML's integers.
_MOST = 1 << 63


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe and check it.

    Parameters
    ----------
    recipe
        A TOML file, or a preset: ``safe`` (exact passes only), ``balanced`` (an error of 0.02,
        for time) or ``small`` (an error of 0.05, for bytes). ``./safe`` is a file.

    Returns
    -------
    dict[str, Any]
        Keywords of `optimize`: fields of `OptimizeOptions`, and ``calibration``. Paths are as in
        the file: relative to the working directory.

    Raises
    ------
    UsageError
        When it can't be read, is no TOML, or has an unknown key or a wrong value, which is named.
    """
    if recipe in PRESETS:
        return dict(PRESETS[str(recipe)])
    name = str(recipe)
    found = {key: _value(name, key, value) for key, value in _parsed(name).items()}
    try:
        OptimizeOptions(**{key: value for key, value in found.items() if key != "calibration"})
    except UsageError as error:
        raise UsageError(f"{name}: {_with_keys(str(error))}") from None
    return found


def recipe_text(options: OptimizeOptions, calibration: object = None) -> str:
    """Write the options of a run as TOML that `read_recipe` reads.

    Parameters
    ----------
    options
        The options; those that are None are left out.
    calibration
        As `optimize` takes it. Only text and paths can be written: of arrays, and of a metric that
        is a function, a comment says that they are to be given again.
    """
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    if options.kept is not None:
        values["keep"] = f"{options.kept.objective}={options.kept.share!r}"
    if callable(options.metric):
        values["metric"] = TaskMetric.load(options.metric)
    lines = [f"# structopt-onnx {__version__}"]
    for key, value in {"calibration": calibration, **values}.items():
        if value is None:
            continue
        if _KINDS[key] is str and not isinstance(value, str | Path):
            what = value.name if isinstance(value, TaskMetric) else type(value).__name__
            lines.append(f"# {key} was given from Python ({what}): give it again")
        else:
            lines.append(f"{key} = {_written(_KINDS[key], value)}")
    return "\n".join(lines) + "\n"


def run_options(
    command: str, recipe: str | Path | None, calibration: object, options: Mapping[str, Any]
) -> tuple[OptimizeOptions, object]:
    """Return the options and the calibration data of a run; what is given wins over the recipe.

    Parameters
    ----------
    command
        Name of the function, for messages.
    recipe
        As `read_recipe` takes it; None is no recipe.
    calibration
        As `optimize` takes it; None takes the recipe's.
    options
        Fields of `OptimizeOptions`.

    Raises
    ------
    UsageError
        As of `read_recipe`, or for a wrong option.
    """
    merged = {} if recipe is None else read_recipe(recipe)
    recalled = merged.pop("calibration", None)
    try:
        checked = OptimizeOptions(**merged | dict(options))
    except TypeError as error:
        raise UsageError(str(error).replace("OptimizeOptions.__init__()", command)) from None
    except UsageError as error:
        beside = "" if recipe is None else f" (beside the recipe {recipe})"
        raise UsageError(f"{error}{beside}") from None
    return checked, recalled if calibration is None else calibration


def _parsed(path: str) -> dict[str, Any]:
    # The name is told as it was given: a Path would drop the ./ that makes a file of a preset's.
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        close = get_close_matches(path, PRESETS, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"presets are {', '.join(PRESETS)}"
        raise UsageError(f"{path}: no such recipe; {hint}") from None
    except OSError as error:
        raise UsageError(f"{path}: the recipe can't be read: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise UsageError(f"{path}: the recipe is no TOML: {error}") from None


def _with_keys(message: str) -> str:
    """Name the key that a message is about, quoted, so that it is not read as an option."""
    marked = _KEYS.sub(lambda key: f"'{key[0]}'", message)
    return f"'passes': {message}" if marked == message else marked


def _value(name: str, key: str, value: Any) -> Any:  # noqa: ANN401 - whatever TOML can say
    """Return a value of the recipe as `OptimizeOptions` takes it."""
    kind = _KINDS.get(key)
    if kind is None:
        close = get_close_matches(key.replace("-", "_"), _KINDS, 1)
        hint = (
            f"did you mean '{close[0]}'?" if close else f"there are {', '.join(map(repr, _KINDS))}"
        )
        raise UsageError(f"{name}: unknown key '{key}'; {hint}")
    if type(value) is int and abs(value) >= _MOST:
        raise UsageError(f"{name}: '{key}' is {_WORDS[kind]}, and this is too large for one")
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and type(value) is list and all(type(item) is str for item in value):
        return tuple(map(Path, value)) if key == "libraries" else tuple(value)
    if type(value) is not kind:
        said = "a table" if isinstance(value, dict) else _written(type(value), value)
        raise UsageError(f"{name}: '{key}' is {_WORDS[kind]}, not {said}")
    return value


def _written(kind: type, value: Any) -> str:  # noqa: ANN401 - likewise
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return repr(float(value))
    if kind is int:
        return str(int(value))
    if kind in (tuple, list):
        return f"[{', '.join(_quoted(str(item)) for item in value)}]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Write a string as TOML's basic one, all of it printable and on one line."""
    # A name that is no Unicode (of a file, say) can't be written in TOML.
    text = text.encode("utf-8", "replace").decode()
    return (
        '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _code(c)) for c in text) + '"'
    )


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else f"\\U{ord(character):08x}"
