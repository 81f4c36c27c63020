from __future__ import annotations

import json

from structopt_onnx.runtime.providers.execution import first_error
from structopt_onnx.runtime.providers.placement import Placement, assigned, logged, profiled


class Node:
    def __init__(self, op_type):
        self.op_type = op_type


class Group:
    def __init__(self, ep_name, *op_types):
        self.ep_name = ep_name
        self.get_nodes = lambda: [Node(op_type) for op_type in op_types]


CPU = "CPUExecutionProvider"


def test_compiled_pieces_are_partitions():
    groups = [
        Group("QNN", "Conv", "Relu"), Group(CPU, "Loop"), Group(CPU, "Loop"), Group("QNN", "Conv"),
    ]  # fmt: skip
    found = assigned(groups, "QNN")
    assert found == Placement({"Conv": 2, "Relu": 1}, {"Loop": 2}, 2)
    assert (found.on_provider, found.nodes) == (3, 5)


def test_nodes_that_run_one_by_one_are_no_partitions():
    assert assigned([Group("CUDA", "Conv"), Group("CUDA", "Relu")], "CUDA").partitions is None


def test_another_provider_is_no_better_than_the_cpu():
    found = assigned([Group("TRT", "Conv", "Relu"), Group("CUDA", "Gemm"), Group(CPU, "If")], "TRT")
    assert dict(found.left) == {"Gemm": 1, "If": 1}


def test_a_profile_counts_each_node_once_over_runs(tmp_path):
    def event(name, provider, op_name):
        args = {"provider": provider, "op_name": op_name}
        return {"cat": "Node", "name": name, "args": args}

    events = [
        {"cat": "Session", "name": "model_run"},
        *[event("c1_kernel_time", "EP", "Conv"), event("r_kernel_time", CPU, "Relu")] * 3,
        event("c1_fence_before", "EP", "Conv"),
    ]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    assert profiled(path, "EP") == Placement({"Conv": 1}, {"Relu": 1})


# Two lines each as onnxruntime 1.16 writes them, and what stands before and after.
_AT = "[V:onnxruntime:, session_state.cc:1150 VerifyEachNodeIsAssignedToAnEp]"
LOG = f"""
2026-11-26 14:03:22.1 [V:onnxruntime:, session_state.cc:1142 VerifyEachNodeIsAssignedToAnEp] \
Node placements
2026-11-26 14:03:22.2 {_AT}  Node(s) placed on [XnnpackExecutionProvider]. Number of nodes: 3
2026-11-26 14:03:22.3 {_AT}   Conv (XnnpackExecutionProvider_Conv_0)
2026-11-26 14:03:22.3 {_AT}   Conv (XnnpackExecutionProvider_Conv_1)
2026-11-26 14:03:22.3 {_AT}   MaxPool (MaxPool)
2026-11-26 14:03:22.4 {_AT}  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1
2026-11-26 14:03:22.5 {_AT}   Pad (/Pad)
2026-11-26 14:03:22.6 [I:onnxruntime:, bfc_arena.cc:29 BFCArena] Creating BFCArena
"""


def test_a_verbose_log_lists_nodes_by_provider():
    found = logged(LOG, "XnnpackExecutionProvider")
    assert found == Placement({"Conv": 2, "MaxPool": 1}, {"Pad": 1})


def test_a_log_with_everything_on_the_cpu_has_nothing_on_the_provider():
    said = f"{_AT}  All nodes placed on [CPUExecutionProvider]. Number of nodes: 7"
    found = logged(said, "XnnpackExecutionProvider")
    assert (found.on_provider, found.nodes) == (0, 7)
    assert logged(said, CPU).on_provider == 7


def test_a_log_without_placements_proves_nothing():
    assert logged("Node(s) were somewhere", "EP").nodes == 0


def test_the_first_error_comes_without_codes_and_folders():
    log = (
        "[W:onnxruntime:Default, x.cc:1 F] not this\n"
        "\x1b[1;31m2026 [E:onnxruntime:Default, p.cc:2 operator()] /s/p.cc:3 Get() "
        "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /a/b/libx.so with error: "
        "liby.so.1: cannot open\n\x1b[m\n[E:onnxruntime:, q.cc:1 G] nor this\n"
    )
    expected = "Failed to load library libx.so with error: liby.so.1: cannot open"
    assert first_error(log) == expected
    assert first_error("all is well") == ""
