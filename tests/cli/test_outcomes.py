from __future__ import annotations

import json
from dataclasses import replace


def test_bisect_names_the_rewrite_to_blame(run, calls):
    text = run("bisect", "in.onnx", "out.onnx").out.splitlines()
    assert "bisect" in calls
    assert text[:2] == [
        "rewrite 7, by factor-matmul at fc: w: rank 8",
        "with it: output 'y': relative L2 error 0.2 is over the limit 0.05",
    ]
    assert " ".join(text[2:]) == (
        "limit 0.05; 12 rewrites on record, 5 models compared on inputs, 4 made up: "
        "x float32[1,3,32,32]"
    )


def test_bisect_blames_nobody_when_the_model_is_good(run, calls, bisection):
    good = replace(bisection, culprit=None, failure=None, error=1e-6, max_error=None)
    calls.answer("bisect", good)
    text = run("bisect", "in.onnx", "out.onnx").out
    assert text.startswith("out.onnx keeps to its limit: error 1e-06\nlimit rounding; ")


def test_bisect_blames_no_rewrite_for_what_was_done_to_the_file_later(run, calls, bisection):
    calls.answer("bisect", replace(bisection, culprit=None))
    text = run("bisect", "in.onnx", "out.onnx").out
    assert text.startswith("out.onnx fails, but no rewrite on record is to blame\n")
    assert "was the file changed after it was made?" in text
    assert "factor-matmul" not in text


def test_inspect_cuts_long_lists_and_says_so(run, calls):
    text = run("inspect", "in.onnx").out
    assert "inspect" in calls
    assert text.startswith("in.onnx: 1,000 bytes, 10 parameters, 100 MACs, 2 nodes\n")
    assert "opsets: ai.onnx 17, com.example 1; by unknown" in text
    assert "40 Op0, 39 Op1, " in text
    assert "and 4 more kinds" in text
    assert "Weights: the largest of 20\n" in text
    assert "com.example::twice" in text
    assert "author" in text
    assert "note: MACs are of made-up sizes of the dimensions that the model leaves open" in text
    assert "note:" not in run("inspect", "in.onnx", "--data", "x.npz").out


def test_inspect_counts_a_single_node_as_one(run, calls, inspection):
    calls.answer("inspect", replace(inspection, cost=replace(inspection.cost, nodes=1)))
    assert run("inspect", "in.onnx").out.partition("\n")[0].endswith(", 1 node")


def test_inspect_does_not_warn_of_sizes_that_are_fixed_or_were_not_run(run, calls, inspection):
    fixed = replace(inspection, inputs=(("x", "tensor(float)", "[1, 64]"),))
    calls.answer("inspect", fixed)
    assert "made-up" not in run("inspect", "in.onnx").out
    calls.answer("inspect", replace(inspection, notes=("not run, so MACs are counted",)))
    assert "made-up" not in run("inspect", "in.onnx").out


def test_benchmark_names_the_option_that_gives_enough_time(run, calls, comparison):
    short = replace(
        comparison, verdict="not measured", reason="8 replicates need about 70 s", ratio=None,
        needed_seconds=75,
    )  # fmt: skip
    calls.answer("benchmark", short)
    text = run("benchmark", "a.onnx", "b.onnx").out
    assert text.startswith(
        "b.onnx against a.onnx: not measured: needs about 75 s, --seconds 75 allows it; "
        "p50 0.5 ms -> 0.5 ms\n"
    )
    assert "not measured: 8 replicates need about 70 s" in text


def test_validate_says_what_was_made_up(run, calls):
    text = run("validate", "a.onnx", "b.onnx").out
    assert "validate" in calls
    assert "\nnote: inputs: 4 made up: x float32[1,3,32,32]; give --data for real ones\n" in text


def test_densify_says_whether_the_result_was_run(run, calls):
    assert "densify" not in calls
    done = run("densify", "a.onnx", "b.onnx")
    assert done.out == (
        "a.onnx -> b.onnx: 2 sparse tensors made dense, 1,000 -> 2,000 bytes; same outputs when"
        " run\n"
    )


def test_benchmark_of_one_and_of_two_models(run, calls):
    two = run("benchmark", "a.onnx", "b.onnx").out
    assert "benchmark" in calls
    assert two.startswith("b.onnx against a.onnx: no difference shown: x1.000 time [0.990, 1.010]")
    assert "no difference shown: the interval includes 1" in two
    assert "\nnote: measured on made-up inputs: x float32[2,4]; give --data for real ones\n" in two
    assert "note:" not in run("benchmark", "a.onnx", "b.onnx", "--data", "x.npz").out
    rows = [line.split() for line in two.splitlines()]
    assert ["p50,", "ms", "0.5", "0.5", "same"] in rows


def test_a_table_over_providers_gives_each_its_status_and_its_reason_once(run, calls):
    text = run("benchmark", "a.onnx", "b.onnx", "--provider", "cpu").out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "A: a.onnx, B: b.onnx"
    assert "cpu A executed 9 of 9 - - - - 1e-07 0.5" in lines
    assert "xnnpack A partial 5 of 9 - - - - - -" in lines
    assert "xnnpack B unavailable - - - - - - -" in lines
    assert "xnnpack, A 4 Relu" in lines
    assert "xnnpack, B opset 21" in lines
    # Said once where it is the same of both models.
    assert lines.count("cuda libcublasLt.so.13: cannot open shared object file") == 1
    assert any(line.startswith("cpu no difference shown: x1.000 time") for line in lines)


def test_providers_are_listed_with_what_to_install(run, calls):
    lines = [" ".join(line.split()) for line in run("providers").out.splitlines()]
    assert lines[1:3] == ["cpu executed o all", "cuda unavailable o-gpu floats"]
    assert "cuda libcublasLt.so.13: cannot open shared object file" in lines


def test_json_of_a_table_has_the_text_of_each_status(run, calls):
    rows = json.loads(run("benchmark", "a.onnx", "--provider", "cpu", "--json").out)["rows"]
    assert [row["status"]["text"] for row in rows][2:4] == [
        "partial (5 of 9 nodes)",
        "unavailable (opset 21)",
    ]


def test_a_bundle_says_which_operators_are_new(run, calls):
    text = run("bundle", "small.onnx", "app", "--before", "model.onnx").out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "small.onnx -> app: for onnxruntime 1.32.0"
    assert "model.ort 2,000 1e-07" in lines
    assert "model.ort needs 2 operators" in lines
    assert "model.with_runtime_opt.ort needs 1 operator, none that model.onnx does not" in lines
    assert lines[-2:] == [
        "New in model.ort against model.onnx", "- ai.onnx:Relu, opset 14",
    ]  # fmt: skip
