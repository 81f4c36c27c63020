"""`bundle`: what an app needs of a model, in one folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.errors import ModelError, UsageError, ValidationFailed
from structopt_onnx.model.encoding import fits_one_file, serialized_size
from structopt_onnx.runtime.ort_format import CONFIGS, Operator, convert, required_operators
from structopt_onnx.runtime.providers.fixed import alike, fixed_copy
from structopt_onnx.runtime.providers.status import Unavailable
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.compare import compare
from structopt_onnx.validation.tolerances import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.model.loading import Source
    from structopt_onnx.runtime.session import Feeds

MANIFEST = "manifest.json"

_FEEDS = 8
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BundledFile:
    """A file of a bundle.

    Attributes
    ----------
    name
        Its name in the folder.
    bytes
        Its size.
    sha256
        Its digest.
    error
        For a model in onnxruntime's format: relative L2 error of its worst output against the
        fixed model without optimizations, on the CPU; None for what is not run.
    """

    name: str
    bytes: int
    sha256: str
    error: float | None = None


@dataclass(frozen=True)
class Required:
    """What a reduced build must have for a form of the model.

    Attributes
    ----------
    model
        The file in onnxruntime's format.
    operators
        All that it needs.
    added, removed
        What it needs and the app did not so far, and the other way round; empty where nothing
        is known of the app.
    """

    model: str
    operators: tuple[Operator, ...]
    added: tuple[Operator, ...] = ()
    removed: tuple[Operator, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes
    ----------
    source
        Display name of the model.
    folder
        Where it was written.
    files
        What is in it beside the manifest.
    inputs, outputs
        As the fixed model declares them, such as ``x: float32[1,3,32,32]``.
    onnxruntime
        The version that converted it; an app needs this one or a newer one.
    required
        What a reduced build must have for each form.
    before
        What the operators were compared with: a model or a list of operators; empty for nothing.
    """

    source: str
    folder: str
    files: tuple[BundledFile, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    onnxruntime: str
    required: tuple[Required, ...]
    before: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def bundle(
    source: Source,
    folder: str | Path,
    *,
    before: Source | None = None,
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    seed: int = 0,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> Bundle:
    """Write a model as an app takes it: fixed shapes, onnxruntime's format, required operators.

    Parameters
    ----------
    source
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
    folder
        Where to; it must not exist, or be empty.
    before
        What the operators are compared with: the model that the app has now, or the ``.config``
        file that its onnxruntime was built with.
    data
        Inputs, whose first gives the shapes: an npz file, a folder, ``module:factory``, arrays by
        input name, or feeds. None makes some up.
    seed, threads, libraries
        Of made-up inputs; of the sessions that check the files.

    Returns
    -------
    Bundle
        What the manifest says, too.

    Raises
    ------
    ValidationFailed
        When a converted file gives other outputs.
    ModelError
        When a model can't be read, fixed or converted.
    UsageError
        When there is something in the folder.
    """
    target = Path(folder).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: give a folder that does not exist, or an empty one")
    opened = open_source(source)
    samples = samples_for(opened, data, seed=seed, threads=threads, libraries=libraries)
    feeds = alike([samples[n] for n in range(min(len(samples), _FEEDS))], _FEEDS)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: can't be made: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        made = Path(name) / "bundle"
        _convert(opened, feeds, made, libraries)
        errors = _check(opened, made, feeds, threads, libraries)
        known = {} if before is None else _known(before, feeds, Path(name), libraries)
        result = Bundle(
            source=opened.name,
            folder=str(folder),
            files=tuple(
                BundledFile(path.name, path.stat().st_size, _digest(path), errors.get(path.name))
                for path in sorted(made.iterdir())
            ),
            inputs=_ports(Session(made / "model.onnx", libraries=libraries).inputs),
            outputs=_ports(Session(made / "model.onnx", libraries=libraries).outputs),
            onnxruntime=str(ort.__version__),
            required=tuple(_required(form, made, known) for form in CONFIGS),
            before="" if before is None else _name(before),
        )
        _write_manifest(result, made)
        target.mkdir(exist_ok=True)
        for path in made.iterdir():
            shutil.move(path, target)
    return result


def _convert(
    opened: Opened, feeds: Sequence[Feeds], folder: Path, libraries: Sequence[Path]
) -> None:
    """Write a model with fixed shapes into a new folder, and its other forms beside it."""
    size = serialized_size(opened.model)
    if not fits_one_file(size):
        raise ModelError(
            f"{opened.name}: takes {size} bytes, more than the 2 GB of one file, which "
            "onnxruntime's format for apps is; optimize it to fewer bytes, or ship the .onnx with "
            "its data file"
        )
    folder.mkdir()
    try:
        fixed_copy(opened.model, feeds[0], folder / "model.onnx")
    except Unavailable as error:
        raise ModelError(f"{opened.name}: {error}") from error
    convert(folder, libraries)


def _check(
    opened: Opened, folder: Path, feeds: Sequence[Feeds], threads: int, libraries: Sequence[Path]
) -> dict[str, float]:
    """Run the converted files on the CPU; return the error of each."""
    reference = Session(folder / "model.onnx", optimize=False, threads=threads, libraries=libraries)
    errors: dict[str, float] = {}
    for path in sorted(folder.glob("*.ort")):
        candidate = Session(path, threads=threads, libraries=libraries)
        found = compare(reference, candidate, feeds, arithmetic=arithmetic_dtype(opened.model))
        if not found.passed:
            raise ValidationFailed(f"{path.name}: {found.failures[0]}")
        errors[path.name] = found.error
    return errors


def _known(
    before: Source, feeds: Sequence[Feeds], folder: Path, libraries: Sequence[Path]
) -> dict[str, frozenset[Operator]]:
    """Return what the app has so far for each form of a model."""
    if isinstance(before, str | Path) and Path(before).suffix == ".config":
        return dict.fromkeys(CONFIGS, required_operators(Path(before)))
    made = folder / "before"
    _convert(open_source(before), feeds, made, libraries)
    return {form: required_operators(made / config) for form, config in CONFIGS.items()}


def _required(form: str, made: Path, known: Mapping[str, frozenset[Operator]]) -> Required:
    needed = required_operators(made / CONFIGS[form])
    had = known.get(form, needed)
    ordered = (tuple(sorted(group)) for group in (needed, needed - had, had - needed))
    return Required(form, *ordered)


def _name(before: Source) -> str:
    return str(before) if isinstance(before, str | Path) else open_source(before).name


def _ports(infos: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, infos))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _write_manifest(result: Bundle, folder: Path) -> None:
    body = {"schema": 1, **result.to_json()}
    del body["folder"]  # it may be moved
    text = json.dumps(body, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
