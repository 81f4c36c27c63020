from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.rewriting.region import Region, RegionInput, RegionWeight
from structopt_onnx.runtime import micro_benchmark
from structopt_onnx.runtime.micro_benchmark import MicroSettings, time_regions


def _product(
    rows: int, size: int, op_type: str = "MatMul", dtype: ir.DataType = ir.DataType.FLOAT
) -> Region:
    graph = onnx.GraphProto(name="region")
    graph.node.append(onnx.helper.make_node(op_type, ["x", "w"], ["y"]))
    graph.output.add().name = "y"
    weight = RegionWeight("w", dtype, (size, size))
    return Region((RegionInput("x", dtype, (rows, size)),), (weight,), graph, 17, 8)


def test_more_work_takes_longer():
    small, large = time_regions([_product(1, 16), _product(64, 512)], MicroSettings(5.0))
    assert 0 < small < large


def test_other_types_and_integer_inputs_run():
    graph = onnx.GraphProto(name="region")
    graph.node.append(onnx.helper.make_node("Gather", ["e", "ids"], ["y"]))
    graph.output.add().name = "y"
    ids = RegionInput("ids", ir.DataType.INT64, (3,), 0, 9)
    table = RegionWeight("e", ir.DataType.FLOAT16, (10, 4))
    regions = [
        Region((ids,), (table,), graph, 17, 8),
        _product(2, 8, dtype=ir.DataType.DOUBLE),
        _product(2, 8, dtype=ir.DataType.FLOAT16),
    ]
    assert all(seconds is not None for seconds in time_regions(regions, MicroSettings(5.0)))


def test_what_the_runtime_refuses_is_not_measured():
    broken, fine = _product(1, 8, op_type="NoSuchOperator"), _product(1, 8)
    seconds = time_regions([broken, fine], MicroSettings(5.0))
    assert seconds[0] is None
    assert seconds[1] is not None


def test_the_last_are_left_out_when_the_time_is_up():
    regions = [_product(256, 512 + n) for n in range(40)]
    seconds = time_regions(regions, MicroSettings(0.05))
    assert seconds[-1] is None


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_starts_no_process(monkeypatch, seconds):
    monkeypatch.setattr(micro_benchmark, "run_job", None)
    assert time_regions([_product(1, 8)], MicroSettings(seconds)) == [None]


def test_a_batch_holds_about_the_working_set():
    regions = [_product(1, 512)] * 5  # 1 MiB each
    batches = list(micro_benchmark._batches(regions, 2 * 2**20))
    assert batches == [[0, 1], [2, 3], [4]]
    assert list(micro_benchmark._batches([_product(1, 1024)], 1)) == [[0]]
