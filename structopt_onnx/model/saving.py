"""Save a model so that the target is, at every moment, either the old model or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import stat
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.encoding import (
    PROTOBUF_LIMIT,
    Skeleton,
    Slot,
    fits_one_file,
    serialized_size,
    to_proto,
)
from structopt_onnx.model.external import DataFolder
from structopt_onnx.model.loading import read_proto, to_ir
from structopt_onnx.model.protos import check_structure, one_line
from structopt_onnx.model.tensors import let_go, replace_tensors
from structopt_onnx.model.whole_file import settle, sync_folder, temporary_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.model.tensors import TensorSite

__all__ = ["save", "serialized_size", "to_proto"]

_ALIGNMENT = 64  # bytes; lets a mapped tensor be read by aligned vector instructions
_STALE_SECONDS = 3600


def save(
    model: ir.Model,
    path: str | Path,
    *,
    external_data: bool | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write a model beside its target, reload and check it there, then rename it.

    A data file gets its content's hash as part of its name and is written first; the .onnx is
    renamed last; the data file of the model that was replaced is removed after that, unless
    another model in the folder names it. So the target may be the file that the model was
    loaded from, and a kill at any moment leaves a whole model. What a killed run leaves behind
    is removed by a later save to the same target once it is an hour old.

    Parameters
    ----------
    model
        Not changed; tensors in a data file that is about to be removed are mapped first and
        stay readable.
    path
        The target. The mode of an existing file is kept; a symbolic link is written through.
    external_data
        True: weights go to a data file beside the target. False: never. None: only where the
        model would pass the 2 GB of one file.
    check
        Called with the temporary file, complete with its data. Whatever it raises leaves the
        target untouched, and the temporary files are removed.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    UsageError
        The target can't be written: its folder is missing or read-only, it is a folder or no
        regular file, the disk is full.
    ModelError
        The model is broken, or does not fit one file and external data is not wanted.
    """
    target = Path(path)
    real = _real_target(target)
    skeleton = Skeleton(model)
    too_large = not fits_one_file(skeleton.size)
    if too_large and external_data is False:
        raise ModelError(
            f"{target}: would take {skeleton.size} bytes, more than the 2 GB of one file; allow"
            " external data"
        )
    temporary = temporary_beside(real, "onnx")
    created = [temporary]
    try:
        try:
            mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else None
            if external_data or too_large:
                if target.is_symlink():
                    raise UsageError(
                        f"{target}: is a link to {real}, and external data is looked for beside"
                        " the link; name that file instead"
                    )
                if too_large:  # one data file can hold all of it, sparse tensors can't go there
                    skeleton = Skeleton(model, sparse=False)
                _write_data(skeleton, real, created, mode)
            _write_proto(skeleton, temporary, mode, target)
        except (OSError, UnicodeError) as error:
            raise _unwritable(target, error) from error
        del skeleton  # its copy of the weights, before the file is parsed again
        _check_written(temporary, target)
        if check is not None:
            check(temporary)
        try:
            replaced = [path for path in _data_files(real) if _mentions(real, path.name)]
            temporary.replace(real)
            sync_folder(real.parent)
        except OSError as error:
            raise _unwritable(target, error) from error
    finally:
        _discard(created, real)
    _remove_unused(real, replaced, model)
    return target


def _real_target(target: Path) -> Path:
    """Return the file to write, after what can be known beforehand."""
    if "\0" in str(target):
        raise UsageError(f"{str(target)!r}: holds a null character; name a file")
    try:
        real = target.resolve() if target.is_symlink() else target
        if real.is_symlink():
            raise UsageError(f"{target}: can't be written (a link to itself); remove it")
        if real.is_dir():
            raise UsageError(f"{target}: is a folder; name a file in it")
        if not real.parent.is_dir():
            raise UsageError(f"{target}: folder {real.parent} does not exist; create it first")
        if real.exists() and not real.is_file():
            raise UsageError(f"{target}: is not a regular file and can't be replaced")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{target}: can't be written ({one_line(error)})") from error
    return real


def _unwritable(target: Path, error: OSError | UnicodeError) -> UsageError:
    reason = getattr(error, "strerror", None) or one_line(error)
    return UsageError(f"{target}: can't be written ({reason}); choose another place or make room")


def _write_data(skeleton: Skeleton, real: Path, created: list[Path], mode: int | None) -> None:
    """Write large tensors to a data file named by its content, and place them there."""
    temporary = temporary_beside(real, "data")
    created.append(temporary)
    digest, position = hashlib.sha256(), 0
    placed: list[tuple[Slot, int]] = []
    inline: list[Slot] = []
    with temporary.open("xb") as file:
        for slot in skeleton.slots:
            if not slot.external_allowed:
                inline.append(slot)
                continue
            padding = bytes(-position % _ALIGNMENT)
            placed.append((slot, position + len(padding)))
            for chunk in chain((padding,), slot.chunks()):
                file.write(chunk)
                digest.update(chunk)
                position += len(chunk)
        settle(file, mode)
    if not placed:
        return
    final = real.with_name(f"{real.stem}.{digest.hexdigest()[:16]}.data")
    if not final.exists():
        created.append(final)
    temporary.replace(final)
    sync_folder(real.parent)
    for slot, offset in placed:
        slot.place(final.name, offset)
    skeleton.slots = inline


def _write_proto(skeleton: Skeleton, path: Path, mode: int | None, target: Path) -> None:
    proto = skeleton.fill()
    size = proto.ByteSize()
    if size > PROTOBUF_LIMIT:
        raise ModelError(
            f"{target}: would take {size} bytes without its data file, more than the 2 GB of one"
            " file; store large attributes of nodes as initializers"
        )
    with path.open("xb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        settle(file, mode)


def _check_written(temporary: Path, target: Path) -> None:
    name = f"{target} (as it would be written)"
    proto = read_proto(temporary, name)
    check_structure(proto, name)  # with its sparse tensors, which are dense once loaded
    let_go(to_ir(proto, DataFolder(name, temporary.parent)))


def _data_files(real: Path) -> list[Path]:
    """List the files beside the target that are named as its data files are."""
    pattern = re.compile(re.escape(real.stem) + r"\.[0-9a-f]{16}\.data")
    return [path for path in real.parent.iterdir() if pattern.fullmatch(path.name)]


def _mentions(path: Path, name: str) -> bool:
    """Whether a model's file may name a data file; true where that can't be told."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(os.fsencode(name)) >= 0
    except (FileNotFoundError, ValueError):  # gone, or empty
        return False
    except OSError:
        return True


def _discard(created: list[Path], real: Path) -> None:
    """Remove what a save made and the target does not use."""
    for path in created:
        with contextlib.suppress(OSError):
            if path.exists() and not _mentions(real, path.name):
                path.unlink()


def _remove_unused(real: Path, replaced: list[Path], model: ir.Model) -> None:
    """Remove the replaced model's data files, and what killed runs left an hour ago or more.

    A data file that any model in the folder names stays, whoever made it.
    """
    leftover = re.compile(r"\." + re.escape(real.name) + r"\.[0-9a-f]{8}\.(onnx|data)")
    oldest = time.time() - _STALE_SECONDS
    with contextlib.suppress(OSError):  # the model is saved; tidying up must not fail it
        present = list(real.parent.iterdir())
        for path in present:
            if leftover.fullmatch(path.name) and path.stat().st_mtime < oldest:
                path.unlink()
        unused = [
            path for path in _data_files(real) if path in replaced or path.stat().st_mtime < oldest
        ]
        models = [path for path in present if path.suffix == ".onnx" or path == real]
        for path in unused:
            if not any(_mentions(other, path.name) for other in models):
                _map_tensors_of(path, model)
                path.unlink()


def _map_tensors_of(path: Path, model: ir.Model) -> None:
    """Map the tensors that lie in a file, so that they outlive its name."""

    def map_(tensor: ir.TensorProtocol, _: TensorSite) -> ir.TensorProtocol:
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is None:
            with contextlib.suppress(OSError):
                if path.samefile(tensor.path):
                    tensor.numpy()
        return tensor

    replace_tensors(model, map_)
