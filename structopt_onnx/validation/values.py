"""What a run can return, taken apart into arrays: tensors, sequences, maps and optionals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structopt_onnx.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Structure: TypeAlias = "str | tuple[Any, ...]"
"""Shape of a nesting: "tensor", "none", ("sequence", ...) or ("map", keys, ...)."""


def leaves(value: object) -> tuple[Structure, list[NDArray[Any]]]:
    """Take an output apart.

    Parameters
    ----------
    value
        An array, a scalar, a list of outputs, a map from keys to scalars or arrays, or None for
        an optional without value.

    Returns
    -------
    structure
        How the arrays are nested; two outputs can be compared where these are equal.
    arrays
        The arrays, in the order of the sequence or of the sorted keys.

    Raises
    ------
    ModelError
        The value is none of these, such as a sparse tensor.
    """
    if value is None:
        return "none", []
    if isinstance(value, (np.ndarray, np.generic)):
        return "tensor", [np.asarray(value)]
    if isinstance(value, (bool, int, float, str)):
        return "tensor", [_narrowed(np.asarray(value))]
    if isinstance(value, (list, tuple)):
        parts = [leaves(item) for item in value]
        structure = ("sequence", *(part[0] for part in parts))
        return structure, [array for part in parts for array in part[1]]
    if isinstance(value, dict):
        return _map_leaves(value)
    raise ModelError(
        f"an output of kind {type(value).__name__} can't be compared; "
        "tensors, sequences, maps and optionals can"
    )


def _map_leaves(value: Mapping[Any, Any]) -> tuple[Structure, list[NDArray[Any]]]:
    keys = tuple(sorted(value, key=lambda key: (type(key).__name__, key)))
    items = [value[key] for key in keys]
    if items and all(isinstance(item, (bool, int, float, str)) for item in items):
        # One array for a row of class probabilities, not one per class.
        return ("map", keys), [_narrowed(np.asarray(items))]
    parts = [leaves(item) for item in items]
    structure = ("map", keys, *(part[0] for part in parts))
    return structure, [array for part in parts for array in part[1]]


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Give Python floats their float32 back: onnxruntime widens the values of a map."""
    if array.dtype != np.float64:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow.astype(np.float64), array, equal_nan=True) else array


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Name of a dtype: numpy's own, "string" for every kind of text."""
    return "string" if dtype.kind in "OUST" else dtype.name


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of this dtype are rounded: real and complex floats of any width.

    bfloat16, float8 and their like come from ml_dtypes and are known to numpy by name only.
    """
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def shape_text(structure: Structure, arrays: list[NDArray[Any]]) -> str:
    """Describe an output in a word or two for an error message."""
    if structure == "tensor":
        return f"shape {arrays[0].shape}"
    if isinstance(structure, tuple):
        kind, *rest = structure
        return f"a {kind} of {len(rest[0]) if kind == 'map' else len(rest)}"
    return "no value"
