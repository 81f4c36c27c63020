"""A model as a proto without its large weights, and those as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from structopt_onnx.errors import ModelError
from structopt_onnx.model.encoding import PROTOBUF_LIMIT, SIZE_MARGIN, Skeleton

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

_NOWHERE = "in memory"
SHARED_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)
"""Types that numpy knows by itself and holds as ONNX does."""


def to_proto_and_arrays(
    model: ir.Model, least_bytes: int
) -> tuple[onnx.ModelProto, dict[str, npt.NDArray[Any]]]:
    """Return a model as a proto without its large weights, and those by name, not copied.

    In the proto they are external, at a location that does not exist.

    Parameters
    ----------
    model
        Not changed.
    least_bytes
        Initializers of the main graph from this size on stay outside.

    Raises
    ------
    ModelError
        What is left would pass 2 GB, or the graph is broken.
    """
    skeleton = Skeleton(model)
    main = list(skeleton.proto.graph.initializer)  # held, so that each has an id of its own
    ids = {id(tensor) for tensor in main}
    arrays: dict[str, npt.NDArray[Any]] = {}
    inline = []
    for slot in skeleton.slots:
        large = slot.tensor.dtype in SHARED_TYPES and slot.nbytes >= least_bytes
        if large and id(slot.proto) in ids:
            arrays[slot.proto.name] = np.ascontiguousarray(slot.tensor.numpy())
            slot.place(_NOWHERE, 0)
        else:
            inline.append(slot)
    if sum(slot.nbytes for slot in inline) + SIZE_MARGIN > PROTOBUF_LIMIT:
        raise ModelError(f"{skeleton.source}: takes more than 2 GB beside its external weights")
    for slot in inline:
        slot.fill()
    return skeleton.proto, arrays
