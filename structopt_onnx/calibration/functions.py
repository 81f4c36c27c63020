"""Functions of the user's own, named on the command line: `module:name` and `file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_NAMED = re.compile(
    r"(?P<place>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|.+\.py):(?P<name>[A-Za-z_]\w*)", re.DOTALL
)


def is_function(text: str) -> bool:
    """Whether a text reads like `module:name` or `file.py:name` and is no file itself."""
    return not Path(text).exists() and _NAMED.fullmatch(text) is not None


def load_function(text: str, task: str) -> Callable[..., Any]:
    """Import a function.

    Parameters
    ----------
    text
        ``module:name``, with the current folder importable, or ``file.py:name``.
    task
        What it must do, for the message when it is missing.

    Raises
    ------
    UsageError
        When the text names no function, or the import fails.
    """
    found = _NAMED.fullmatch(text)
    if found is None:
        raise UsageError(f"'{text}' is neither module:function nor file.py:function")
    place = found["place"]
    try:
        module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        missing = getattr(error, "name", None)
        what = f"no module named {missing}" if missing else f"no file {place}"
        raise UsageError(f"{text}: no such file, and {what}") from error
    except Exception as error:  # the user's module may raise anything while it is imported
        raise UsageError(f"{text}: import failed: {told(error)}") from error
    function: Any = getattr(module, found["name"], None)
    if not callable(function):
        what = place if place.endswith(".py") else f"module {place}"
        raise UsageError(f"{text}: {what} has no function {found['name']}; it must {task}")
    return function  # type: ignore[no-any-return]  # any callable will do; its calls are checked


def told(error: Exception) -> str:
    """Return an error of the user's code on one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported."""
    here = str(folder)
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _import(name: str) -> ModuleType:
    with importable(Path.cwd()):
        return importlib.import_module(name)


def _run_file(path: Path) -> ModuleType:
    name = f"structopt_onnx_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up.
    sys.modules[name] = module
    with importable(path.resolve().parent):
        spec.loader.exec_module(module)
    return module
