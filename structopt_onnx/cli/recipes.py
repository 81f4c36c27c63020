"""Options that read and write recipes, and which of a command's options win over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Take options from a TOML file, or from a preset: safe (exact rewrites only), "
        "balanced (error 0.02, for time) or small (error 0.05, for bytes). Options given here "
        "win.",
    ),
]
WriteRecipe = Annotated[
    Path | None,
    typer.Option(
        "--write-recipe",
        metavar="FILE",
        help="Also write the options of this run there, as a recipe.",
    ),
]

# Options whose name on the command line is not the parameter's that they set.
_PARAMETERS = {"libraries": "library"}
_GIVEN = {"COMMANDLINE", "ENVIRONMENT"}


def given(
    context: typer.Context, settings: Mapping[str, Any], recipe: str | None
) -> dict[str, Any]:
    """Return the settings that win over a recipe: those that the user gave.

    Parameters
    ----------
    context
        What knows where a value is from.
    settings
        Keywords of the package's function; all of them are returned where there is no recipe.
    recipe
        As given; None is no recipe.
    """
    if recipe is None:
        return dict(settings)
    sources = {key: context.get_parameter_source(_PARAMETERS.get(key, key)) for key in settings}
    chosen = {key for key, source in sources.items() if source and source.name in _GIVEN}
    return {"recipe": recipe} | {key: settings[key] for key in settings if key in chosen}
