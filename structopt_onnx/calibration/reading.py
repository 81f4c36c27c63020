"""Where sample arrays come from: npz archives, folders, ONNX test data sets, Python factories."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from structopt_onnx.calibration.functions import importable, is_function, load_function, told
from structopt_onnx.errors import DataError, StructoptError, UsageError

if TYPE_CHECKING:
    from structopt_onnx.calibration.layout import Array

SOURCE = "__source__"

_INPUT_FILE = re.compile(r"input_(\d+)\.pb")


@dataclass(frozen=True)
class Batch:
    """Arrays that came together.

    Parameters
    ----------
    label
        What to call them in messages.
    arrays
        One array per input.
    whole
        Every array is one run's input as it is.
    sources
        Where each sample is from, or one name for all; None when the data does not say.
    """

    label: str
    arrays: Mapping[str, Array]
    whole: bool = False
    sources: Array | str | None = None


def origin_of(data: object) -> str:
    """Return what the report calls the data: the file's or factory's name."""
    if isinstance(data, Path):
        return data.name
    if isinstance(data, str):
        return data if is_function(data) else Path(data).name
    return "arrays in memory"


def read(data: object, names: Sequence[str]) -> list[Batch]:
    """Read everything that the user's calibration argument stands for.

    Parameters
    ----------
    data
        Path of an npz file or of a folder, `module:factory` or `file.py:factory`, a mapping of
        arrays, or an iterable, such as a torch DataLoader: of feeds by name, each one run; or of
        tensors or tuples of them in the order of the inputs, each a batch, of which what follows
        the last input (labels) is left out.
    names
        The model's inputs in order; ONNX test data sets number theirs.

    Raises
    ------
    DataError
        When a file or folder can't be read or holds nothing usable.
    UsageError
        When a factory can't be imported or fails.
    """
    if isinstance(data, str) and is_function(data):
        return _call_factory(data, names)
    if isinstance(data, str | Path):
        path = Path(data)
        return _read_folder(path, names) if path.is_dir() else [_read_npz(path)]
    return _in_memory(data, origin_of(data), names)


def _in_memory(data: object, label: str, names: Sequence[str]) -> list[Batch]:
    if isinstance(data, Mapping):
        return [_with_sources(label, dict(data), None)]
    if not isinstance(data, Iterable):
        raise DataError(
            f"{label}: expected a mapping of arrays or feeds, found {type(data).__name__}"
        )
    batches = []
    for k, item in enumerate(data):
        told = f"{label}, sample {k},"
        if isinstance(item, Mapping):
            feeds = {name: _array(value) for name, value in item.items()}
            batches.append(Batch(told, feeds, whole=True))
            continue
        values = item if isinstance(item, tuple | list) else (item,)
        if not all(hasattr(value, "__array__") for value in values[: len(names)]):
            raise DataError(
                f"{label}: sample {k} is a {type(item).__name__}; expected a mapping from input "
                "names to arrays, or arrays in the order of the inputs"
            )
        batches.append(Batch(told, {n: _array(v) for n, v in zip(names, values, strict=False)}))
    return batches


def _array(value: object) -> Array:
    """Return a tensor of torch's, or what numpy takes, as an array."""
    detached = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(detached)


def _with_sources(label: str, arrays: dict[str, Array], source: str | None) -> Batch:
    named = arrays.pop(SOURCE, None)
    return Batch(label, arrays, sources=source if named is None else np.asarray(named))


def _read_npz(path: Path, source: str | None = None) -> Batch:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(
                    f"{path}: not an npz archive; save one array per input with numpy.savez"
                )
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            arrays: dict[str, Array] = dict(archive)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such calibration file or folder") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as npz: {cause}") from error
    return _with_sources(str(path), arrays, source)


def _read_folder(path: Path, names: Sequence[str]) -> list[Batch]:
    archives = sorted(path.glob("*.npz"))
    if archives:
        return [_read_npz(archive, archive.stem) for archive in archives]
    folders = sorted(
        (f for f in path.glob("test_data_set_*") if f.is_dir()), key=lambda f: (len(f.name), f.name)
    )
    if not folders and any(_INPUT_FILE.fullmatch(f.name) for f in path.iterdir()):
        folders = [path]
    if not folders:
        raise DataError(f"{path}: holds neither npz files nor test_data_set_* folders")
    return [Batch(str(f), _read_test_data(f, names), whole=True) for f in folders]


def _read_test_data(folder: Path, names: Sequence[str]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for file in sorted(folder.iterdir()):
        match = _INPUT_FILE.fullmatch(file.name)
        if match is None:
            continue
        number = int(match[1])
        if number >= len(names):
            raise DataError(f"{file}: the model has only {len(names)} inputs: {', '.join(names)}")
        try:
            arrays[names[number]] = onnx.numpy_helper.to_array(onnx.load_tensor(file))
        except Exception as error:  # protobuf, file system and conversion errors share no base
            raise DataError(f"{file}: can't be read as a tensor") from error
    return arrays


def _call_factory(text: str, names: Sequence[str]) -> list[Batch]:
    # Code that a factory imports late lies beside it, like the factory itself.
    with importable(Path.cwd()):
        factory = load_function(text, "return feeds or arrays")
        try:
            # A generator runs the user's code here, not at the call.
            return _in_memory(factory(), text, names)
        except StructoptError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UsageError(f"{text}: the factory failed: {told(error)}") from error
