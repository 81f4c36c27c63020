from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.passes.convolution.even_sizes import is_even
from structopt_onnx.runtime.session import Session

_UP = 'mode = "nearest", coordinate_transformation_mode = "asymmetric"'
_BODIES = {
    "Resize by two": (f"y = Resize<{_UP}>(x, , twice)", True),
    "Resize by two along axes": (f"y = Resize<{_UP}, axes = [-2, -1]>(x, , pair)", True),
    "Resize by three": (f"y = Resize<{_UP}>(x, , thrice)", None),
    "Resize by a half": (f"y = Resize<{_UP}>(x, , half)", None),
    "Resize of another axis": (f"y = Resize<{_UP}, axes = [3]>(x, , one)", None),
    "DepthToSpace": ("y = DepthToSpace<blocksize = 2>(x)", True),
    "DepthToSpace by one": ("y = DepthToSpace<blocksize = 1>(x)", None),
    "ConvTranspose": ("y = ConvTranspose<strides = [2, 2]>(x, w)", True),
    "ConvTranspose of an odd span": ("y = ConvTranspose<strides = [2, 2]>(x, v)", None),
    "ConvTranspose that makes up for it": (
        "y = ConvTranspose<strides = [2, 2], output_padding = [1, 1], pads = [1, 1, 1, 1]>(x, v)",
        True,
    ),
    "ConvTranspose without stride": ("y = ConvTranspose(x, w)", None),
    "behind what keeps the size": (
        f"""u = Resize<{_UP}>(x, , twice)
        a = Conv<pads = [1, 1, 1, 1]>(u, v)
        b = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)
        c = Relu(b)
        d = Concat<axis = 1>(c, c)
        y = Add(d, d)""",
        True,
    ),
    "behind what loses a position": (
        f"""u = Resize<{_UP}>(x, , twice)
        y = AveragePool<kernel_shape = [2, 2]>(u)""",
        None,
    ),
    "behind a stride": (
        f"""u = Resize<{_UP}>(x, , twice)
        y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(u, v)""",
        None,
    ),
    "joined along the axis": (
        f"""u = Resize<{_UP}>(x, , twice)
        m = ReduceMean(u, rows)
        y = Concat<axis = 2>(u, m)""",
        None,
    ),
    "one position broadcast": (
        f"""u = Resize<{_UP}>(x, , twice)
        p = GlobalAveragePool(u)
        y = Mul(p, u)""",
        True,
    ),
    "nothing that makes it even": ("y = Relu(x)", None),
}


@pytest.mark.parametrize("what", _BODIES)
def test_a_size_said_to_be_even_is_even_in_every_run(what: str):
    body, expected = _BODIES[what]
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[1,4,H,W] x) => (float[1,C,P,Q] y)
    <float[4] twice = {{1, 1, 2, 2}}, float[4] thrice = {{1, 1, 3, 3}}, float[2] pair = {{2, 2}},
     float[4] half = {{1, 1, 0.5, 0.5}}, float[1] one = {{2}},
     int64[1] rows = {{2}}> {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, taps in (("w", 2), ("v", 3)):
        array = rng.standard_normal((4, 4, taps, taps)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = load(proto)
    found = is_even(model.graph.outputs[0], 2, Facts(model))
    assert found is expected
    session = Session(proto.SerializeToString(), optimize=False)
    sizes = {
        session.run({"x": rng.standard_normal((1, 4, size, 6)).astype(np.float32)})["y"].shape[2]
        for size in range(3, 8)
    }
    assert all(size % 2 == 0 for size in sizes) is bool(found)
