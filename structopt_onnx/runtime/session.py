"""One model opened in onnxruntime: what it takes, what it gives, and a checked run."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from structopt_onnx.errors import DataError, ModelError
from structopt_onnx.runtime.options import CPU, Provider, SessionSettings, naming, open_session
from structopt_onnx.runtime.serialized import Weights, serialized

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import onnx

Feeds: TypeAlias = dict[str, np.ndarray[Any, np.dtype[Any]]]
"""One run's inputs: an array per input name."""

Outputs: TypeAlias = dict[str, Any]
"""One run's outputs: an array per name; a list or `None` for a sequence or an empty optional."""

# Element types that numpy knows only through ml_dtypes and onnxruntime not at all as arrays.
_EXTENDED = {
    ir.DataType.BFLOAT16: np.uint16,
    ir.DataType.FLOAT8E4M3FN: np.uint8,
    ir.DataType.FLOAT8E4M3FNUZ: np.uint8,
    ir.DataType.FLOAT8E5M2: np.uint8,
    ir.DataType.FLOAT8E5M2FNUZ: np.uint8,
}


@dataclass(frozen=True)
class TensorInfo:
    """What onnxruntime says about an input or output.

    Attributes
    ----------
    name
        Its name.
    dtype
        Element type (`object` for strings); `None` for what is not a tensor.
    shape
        A number, a symbol or `None` (unknown) per axis.
    type
        onnxruntime's text, such as `tensor(float)` or `seq(tensor(int64))`.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...]
    type: str

    def __str__(self) -> str:
        """Return the name, element type and shape on one line."""
        if self.dtype is None:
            return f"{self.name}: {self.type}"
        sizes = ",".join("?" if size is None else str(size) for size in self.shape)
        element = "string" if self.dtype.hasobject else self.dtype.name
        return f"{self.name}: {element}[{sizes}]"


class Session:
    """A model opened in onnxruntime.

    Parameters
    ----------
    model
        A model file, a serialized model without external data, or a model in memory.
    weights
        With a serialized model: data of initializers that are external in it.
    optimize
        All of onnxruntime's graph optimizations, or none.
    threads
        Threads inside one operator.
    libraries
        Shared libraries with custom operators.
    outputs
        Which values `run` returns, in this order; `None` for the model's own outputs. With a
        model in memory any value of the main graph can be named.
    name
        What to call the model in an error; by default its path or the name of its graph.
    provider
        The execution provider.
    profile_prefix
        Where onnxruntime shall write a profile; see `end_profiling`.

    Attributes
    ----------
    inputs, outputs
        The model's real inputs and what `run` returns.
    overridable
        Initializers that a feed may replace.

    Raises
    ------
    ModelError
        If the file is missing, onnxruntime refuses the model, or there is no such output.
    UsageError
        If a custom operator library can't be loaded.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    overridable: tuple[TensorInfo, ...]

    def __init__(
        self,
        model: Path | bytes | ir.Model,
        *,
        weights: Weights | None = None,
        optimize: bool = True,
        threads: int = 1,
        libraries: Sequence[Path] = (),
        outputs: Sequence[str] | None = None,
        name: str | None = None,
        provider: Provider = CPU,
        profile_prefix: Path | None = None,
    ) -> None:
        self.name = name or _name(model)
        self._weights: Weights = {}
        settings = SessionSettings(
            optimize=optimize,
            threads=threads,
            libraries=tuple(libraries),
            provider=provider,
            profile_prefix=profile_prefix,
        )
        if isinstance(model, ir.Model):
            with serialized(model, lambda proto: _expose(proto, outputs or ())) as (source, held):
                self._session = open_session(source, self.name, settings, held)
            self._weights = held  # the session reads them where they are
        else:
            self._weights = weights or {}
            self._session = open_session(model, self.name, settings, self._weights)
        self.inputs = tuple(_info(node) for node in self._session.get_inputs())
        self.overridable = tuple(
            _info(node) for node in self._session.get_overridable_initializers()
        )
        offered = {node.name: _info(node) for node in self._session.get_outputs()}
        for wanted in outputs or ():
            if wanted not in offered:
                raise ModelError(
                    f"{self.name}: no output named {wanted!r}; it has {', '.join(offered)}"
                )
        self.outputs = tuple(offered[wanted] for wanted in (outputs or offered))
        self._known = {info.name: info for info in (*self.inputs, *self.overridable)}
        self._extended = any(
            _element_type(info.type) in _EXTENDED for info in (*self.inputs, *self.outputs)
        )

    def run(self, feeds: Feeds) -> Outputs:
        """Run the model once.

        Parameters
        ----------
        feeds
            An array per input, of the input's dtype, rank and fixed sizes.

        Returns
        -------
        dict
            An array per output; a list for a sequence, `None` for an empty optional.

        Raises
        ------
        DataError
            If an input is missing or unknown, or an array does not fit it.
        ModelError
            If onnxruntime fails while it runs.
        """
        self._check(feeds)
        names = [info.name for info in self.outputs]
        with naming(self.name, "run"):
            if self._extended:
                values = self._run_extended(names, feeds)
            else:
                values = self._session.run(names, feeds)
        return dict(zip(names, values, strict=True))

    def end_profiling(self) -> Path:
        """Stop profiling and return the file that onnxruntime wrote; the caller deletes it."""
        return Path(self._session.end_profiling())

    def _check(self, feeds: Feeds) -> None:
        missing = [str(info) for info in self.inputs if info.name not in feeds]
        if missing:
            raise DataError(f"{self.name}: no data for {'; '.join(missing)}")
        for name, array in feeds.items():
            info = self._known.get(name)
            if info is None:
                expected = "; ".join(map(str, self.inputs))
                raise DataError(f"{self.name}: no input named {name!r}; expected {expected}")
            if info.dtype is not None and not _fits(array, info.dtype, info.shape):
                sizes = ",".join(map(str, array.shape))
                raise DataError(f"{self.name}: input {info} can't take {array.dtype.name}[{sizes}]")

    def _run_extended(self, names: list[str], feeds: Feeds) -> list[Any]:
        values = {
            name: _to_value(array, _element_type(self._known[name].type))
            for name, array in feeds.items()
        }
        return [_from_value(v) for v in self._session.run_with_ort_values(names, values)]


def _name(model: Path | bytes | ir.Model) -> str:
    if isinstance(model, Path):
        return str(model)
    if isinstance(model, bytes):
        return f"model of {len(model)} bytes"
    return f"model {model.graph.name!r}" if model.graph.name else "model"


def _expose(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make values of the main graph outputs; onnxruntime infers their types itself."""
    standing = {output.name for output in proto.graph.output}
    inside = {name for node in proto.graph.node for name in node.output}
    for name in names:
        if name in inside and name not in standing:
            proto.graph.output.add().name = name
            standing.add(name)


def _element_type(text: str) -> ir.DataType | None:
    """Element type of onnxruntime's `tensor(...)`; `None` for everything else."""
    if not (text.startswith("tensor(") and text.endswith(")")):
        return None
    name = text.removeprefix("tensor(").removesuffix(")").upper()
    return ir.DataType[name] if name in ir.DataType.__members__ else None


def _info(node: Any) -> TensorInfo:  # noqa: ANN401 - onnxruntime ships no types
    element = _element_type(node.type)
    return TensorInfo(
        name=node.name,
        dtype=None if element is None else np.dtype(element.numpy()),
        shape=tuple(node.shape or ()),
        type=node.type,
    )


def _fits(
    array: npt.NDArray[Any], dtype: np.dtype[Any], shape: tuple[int | str | None, ...]
) -> bool:
    same_type = array.dtype.kind in "OSU" if dtype.hasobject else array.dtype == dtype
    return (
        same_type
        and array.ndim == len(shape)
        and all(
            not isinstance(want, int) or want == have
            for want, have in zip(shape, array.shape, strict=True)
        )
    )


def _to_value(array: npt.NDArray[Any], element: ir.DataType | None) -> ort.OrtValue:
    if element in _EXTENDED:
        raw = np.ascontiguousarray(array).view(_EXTENDED[element])
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, int(element))
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _from_value(value: ort.OrtValue) -> Any:  # noqa: ANN401 - tensor, sequence or nothing
    if not value.is_tensor():
        return value.numpy()
    element = ir.DataType(value.element_type())
    if element not in _EXTENDED:
        return value.numpy()
    # onnxruntime has no array of this type to give: copy its bytes out and name their type.
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=element.numpy()).reshape(value.shape()).copy()
