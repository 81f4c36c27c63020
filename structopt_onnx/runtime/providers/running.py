"""One model on one provider, by whatever way there is on this machine."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx

from structopt_onnx.errors import StructoptError
from structopt_onnx.model.loading import SOURCE
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.coverage import Coverage, coverage
from structopt_onnx.runtime.providers import web
from structopt_onnx.runtime.providers.case import Case
from structopt_onnx.runtime.providers.fixed import alike, data_files, fixed_copy, lowered
from structopt_onnx.runtime.providers.local import NotHere, run_in_session
from structopt_onnx.runtime.providers.phone import has_phone_tools, run_on_phone
from structopt_onnx.runtime.providers.status import Unavailable
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.runtime.providers.catalogue import ProviderSpec
    from structopt_onnx.runtime.providers.ran import Ran
    from structopt_onnx.runtime.session import Feeds

_FEEDS = 4


def prepare(
    model: ir.Model, feeds: Sequence[Feeds], path: Path, libraries: Sequence[Path] = ()
) -> Case:
    """Write a model with fixed shapes and run it on the CPU.

    Parameters
    ----------
    model
        Not changed.
    feeds
        Inputs; those of the first one's shapes are taken.
    path
        Where to write it; to be kept as long as the case.
    libraries
        Shared libraries with custom operators.

    Raises
    ------
    Unavailable
        When its shapes can't be fixed, so that nothing can be said of any provider.
    ModelError
        When the CPU can't run it.
    """
    chosen = alike(feeds, _FEEDS)
    fixed_copy(model, chosen[0], path)
    name = str(model.meta.get(SOURCE, path.name))
    session = Session(path, optimize=False, libraries=libraries, name=name)
    return Case(model, path, chosen, [session.run(feed) for feed in chosen], libraries)


def run_provider(case: Case, spec: ProviderSpec, packages: str) -> Ran | Coverage:
    """Run a model on a provider; where it can't be had at all, predict what it would take.

    Parameters
    ----------
    case
        The model.
    spec
        The provider.
    packages
        The folder with what the provider needs; empty takes what is installed.

    Raises
    ------
    Unavailable
        With the reason.
    """
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if has_phone_tools(packages):
            return run_on_phone(spec, case, folder, Path(packages))
        if spec.way == "lists":
            return predict(case, spec)
        if spec.way == "web":
            if data_files(case.path):
                raise Unavailable("over 2 GB, more than one file without external data can hold")
            path = folder / "model.onnx"
            onnx.save(lowered(onnx.load(case.path), web.NEWEST_OPSET, web.NEWEST_IR), path)
            return web.run_in_web(spec, path, case.feeds, folder, packages)
        try:
            return run_in_session(spec, case, folder, packages)
        except NotHere:
            if not spec.predicted:
                raise
            return predict(case, spec)


def predict(case: Case, spec: ProviderSpec) -> Coverage:
    """Ask the lists of operators.

    Raises
    ------
    Unavailable
        When there are none.
    """
    try:
        found = coverage(case.model, TARGETS[spec.name])
    except StructoptError as error:
        raise Unavailable(str(error)) from error
    if found is None:
        raise Unavailable("nothing lists its operators")
    return found


def variable(spec: ProviderSpec) -> str:
    """Return the environment's variable with the folder of what a provider needs."""
    return f"STRUCTOPT_ONNX_{spec.name.upper()}"
