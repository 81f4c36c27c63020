"""A reproducer: the model and the options with which a bug in a pass was met."""

from __future__ import annotations

import json
import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx import __version__
from structopt_onnx.errors import InternalError, StructoptError
from structopt_onnx.model.saving import save
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.runtime.machine import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.api.bench import Bench


@contextmanager
def reproducible(bench: Bench) -> Iterator[None]:
    """Save the model and the options when a bug shows inside, and name the folder in the error.

    Raises
    ------
    InternalError
        The one raised inside, with the folder's path.
    """
    try:
        yield
    except InternalError as error:
        try:
            folder = _write(bench, error)
        except (OSError, StructoptError) as failed:
            raise InternalError(f"{error}; no reproducer could be written: {failed}") from error
        raise InternalError(f"{error}; reproducer: {folder}") from error


def _write(bench: Bench, error: InternalError) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="structopt-onnx-reproducer-"))
    save(bench.model, folder / "model.onnx")
    told = {
        "error": str(error),
        "version": __version__,
        "source": bench.name,
        "pipeline": pipeline_text(bench.options.steps()),
        "options": bench.options.record(),
        "samples": bench.samples.origin,
        "machine": asdict(current()),
        "traceback": traceback.format_exception(error),
    }
    text = json.dumps(told, indent=2, default=str)
    (folder / "reproduce.json").write_text(text, encoding="utf-8")
    return folder
