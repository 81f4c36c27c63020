"""Build a low-rank factorization served as a model: user ids in, those users' rows out.

Run `python models/make_low_rank_factorization.py OUT.onnx [--form dense|factored]`; needs numpy and
onnx only. The dense form gathers rows of the noisy 1000 x 10000 matrix (40 MB). The factored form
gathers rows of its rank-50 truncated singular value decomposition and multiplies (2.2 MB). The
inputs of the calibration and test users are written beside OUT.onnx.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from user_item_matrix import ITEMS, RANK, user_ids, user_item_matrix

FORMS = ("dense", "factored")


def factors(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factor `matrix` [m, n] into float32 [m, rank] and [rank, n], best in least squares.

    The left singular vectors are the eigenvectors of the m x m Gram matrix (Eckart and Young,
    1936); the singular values go to the right factor.
    """
    wide = matrix.astype(np.float64)
    _, vectors = np.linalg.eigh(wide @ wide.T)
    left = vectors[:, ::-1][:, :rank]
    return left.astype(np.float32), (left.T @ wide).astype(np.float32)


def build(form: str) -> onnx.ModelProto:
    """Build one form: user_ids int64 [batch] -> ratings float32 [batch, 10000]."""
    _, noisy = user_item_matrix()
    if form == "dense":
        initializers = [numpy_helper.from_array(noisy, "ratings_by_user")]
        nodes = [helper.make_node("Gather", ["ratings_by_user", "user_ids"], ["ratings"], axis=0)]
    else:
        users, items = factors(noisy, RANK)
        initializers = [
            numpy_helper.from_array(users, "users"),
            numpy_helper.from_array(items, "items"),
        ]
        nodes = [
            helper.make_node("Gather", ["users", "user_ids"], ["user"], axis=0),
            helper.make_node("MatMul", ["user", "items"], ["ratings"]),
        ]
    graph = helper.make_graph(
        nodes,
        f"low_rank_factorization_{form}",
        [helper.make_tensor_value_info("user_ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("ratings", TensorProto.FLOAT, ["batch", ITEMS])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def main() -> None:
    """Write the model and, beside it, `OUT_calibration.npz` and `OUT_test.npz`."""
    parser = argparse.ArgumentParser(description="build the low-rank factorization model")
    parser.add_argument("out", type=Path, help="the .onnx file to write")
    parser.add_argument("--form", choices=FORMS, default="dense")
    arguments = parser.parse_args()
    out: Path = arguments.out
    model = build(arguments.form)
    onnx.checker.check_model(model, full_check=True)
    out.write_bytes(model.SerializeToString(deterministic=True))
    for part in ("calibration", "test"):
        np.savez_compressed(out.with_name(f"{out.stem}_{part}.npz"), user_ids=user_ids(part))
    print(f"{out} written")


if __name__ == "__main__":
    main()
