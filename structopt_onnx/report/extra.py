"""What the extra `report` brings: asked for before the work, loaded when it is drawn."""

from __future__ import annotations

from importlib.util import find_spec

from structopt_onnx.errors import UsageError


def require(module: str, what: str) -> None:
    """Refuse at once what could not be drawn at the end.

    Parameters
    ----------
    module
        The package that draws it.
    what
        What is wanted of it.

    Raises
    ------
    UsageError
        When it is not installed.
    """
    try:
        found = find_spec(module)
    except ValueError:  # blocked, as tests do
        found = None
    if found is None:
        raise UsageError(f"{what} need {module}: pip install 'structopt-onnx[report]'")
