"""External data: where a tensor's bytes lie, confined to the folder of the model's file."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from structopt_onnx.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    import onnx_ir as ir


class Span(NamedTuple):
    """Bytes of a data file; `offset` and `length` in bytes."""

    path: Path
    offset: int
    length: int


class DataFolder:
    """The one folder that a model's external data may lie in.

    Parameters
    ----------
    source
        How messages name the model.
    folder
        The folder of the model's file; None for a model that came without one.
    """

    def __init__(self, source: str, folder: Path | None) -> None:
        self.source = source
        self.path = None if folder is None else folder.absolute()
        self._files: dict[str, tuple[Path, int]] = {}

    def span(self, label: str, tensor: onnx.TensorProto, nbytes: int) -> Span:
        """Say where an external tensor's bytes lie.

        Parameters
        ----------
        label
            How messages name the tensor.
        tensor
            A tensor whose `data_location` is EXTERNAL.
        nbytes
            The bytes that its element type and shape need.

        Raises
        ------
        ModelError
            The file is missing, lies outside of the folder or is too short, or the entry makes
            no sense.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path, size = self._file(label, entries.get("location", ""))
        offset = self._number(label, entries, "offset", 0)
        # Runtimes read a length of 0 as "not given".
        length = self._number(label, entries, "length", 0) or nbytes
        if length != nbytes:
            raise ModelError(
                f"{self.source}: {label}: the entry for its data in {path} says {length} bytes,"
                f" its element type and shape need {nbytes}; export the model again"
            )
        if offset + length > size:
            raise ModelError(
                f"{self.source}: {label}: needs bytes {offset} to {offset + length} of {path},"
                f" which has {size}; the data file is truncated or another model's, copy it again"
            )
        return Span(path, offset, length)

    def read(self, label: str, tensor: onnx.TensorProto, nbytes: int) -> bytes:
        """Read an external tensor's bytes; arguments and errors as in `span`."""
        path, offset, length = self.span(label, tensor, nbytes)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise ModelError(
                f"{self.source}: {label}: its data file {path} can't be read ({error.strerror})"
            ) from error
        if len(data) != length:
            raise ModelError(f"{self.source}: {label}: its data file {path} shrank while read")
        return data

    def _file(self, label: str, location: str) -> tuple[Path, int]:
        if location in self._files:
            return self._files[location]
        where = f"{self.source}: {label}: its external data {location!r}"
        if self.path is None:
            raise ModelError(
                f"{where} can't be found, since the model came without a folder; pass the path"
                " of the .onnx file, or load the data into the model first"
            )
        if not location:
            raise ModelError(
                f"{self.source}: {label}: is external but names no data file; export again"
            )
        try:
            root = self.path.resolve()
            path = (self.path / location).resolve()
            inside = not Path(location).is_absolute() and path.is_relative_to(root)
            status = path.stat() if inside else None
        except FileNotFoundError as error:
            raise ModelError(f"{where} is missing; put the data file into {self.path}") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{where} can't be opened ({_reason(error)})") from error
        if status is None or ".." in Path(location).parts:
            raise ModelError(
                f"{where} lies outside of the model's folder {self.path}; copy it there and name"
                " it by a relative path"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} is not a regular file; copy the data file there")
        if status.st_nlink > 1:  # onnx's checker and onnx_ir refuse those: they defeat confinement
            raise ModelError(f"{where} has several hard links; replace it by a copy of its own")
        self._files[location] = (path, status.st_size)
        return self._files[location]

    def _number(self, label: str, entries: Mapping[str, str], key: str, default: int) -> int:
        text = entries.get(key, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit()):
            raise ModelError(
                f"{self.source}: {label}: external data has {key} {text!r}, which is not a"
                " number of bytes; export the model again"
            )
        return int(text)


def check_mappable(tensor: ir.ExternalTensor, source: str) -> None:
    """Check that the file behind a tensor of the IR is there and long enough.

    Raises
    ------
    ModelError
        It is not; the first use of the tensor would fail.
    """
    try:
        size = Path(tensor.path).stat().st_size
    except OSError as error:
        raise ModelError(
            f"{source}: {tensor.name!r}: its data file {tensor.path} can't be opened"
            f" ({error.strerror}); load the model again from where its data lies"
        ) from error
    if (tensor.offset or 0) + tensor.nbytes > size:
        raise ModelError(
            f"{source}: {tensor.name!r}: its data file {tensor.path} is too short; copy it again"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
