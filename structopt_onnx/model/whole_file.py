"""Files that are, at every moment, either the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target, then rename it.

    Parameters
    ----------
    path
        The target. The mode of an existing file is kept; a symbolic link is written through, and
        what is no regular file, such as a pipe, is written to in place.
    content
        All of it.

    Raises
    ------
    OSError
        When it can't be written; the target is as it was.
    """
    # Before the link is followed: that of a pipe leads to no file.
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    real = path.resolve() if path.is_symlink() else path
    mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else None
    temporary = temporary_beside(real, "tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            settle(file, mode)
        temporary.replace(real)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(real.parent)


def temporary_beside(real: Path, suffix: str) -> Path:
    """Return a name beside a file that nobody else takes."""
    return real.with_name(f".{real.name}.{secrets.token_hex(4)}.{suffix}")


def settle(file: BinaryIO, mode: int | None) -> None:
    """Bring what was written to the disk, under the mode of the file to be replaced."""
    file.flush()
    os.fsync(file.fileno())
    if mode is not None:
        Path(file.name).chmod(mode)


def sync_folder(folder: Path) -> None:
    """Make renames durable, where folders can be opened and synchronized at all."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some can't be read, some network file systems can't
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
