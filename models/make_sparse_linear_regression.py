"""Fit a sparse linear regression on scikit-learn's diabetes data and write it with COO weights.

Run `python models/make_sparse_linear_regression.py` with scikit-learn and onnx installed. The lasso
chooses among all products of up to three of the ten measurements; what it does not choose has a
weight of exactly zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LassoCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

HERE = Path(__file__).resolve().parent
NAME = "sparse_linear_regression"


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit weights [features] and a bias; the penalty is the best of five-fold cross-validation."""
    lasso = LassoCV(eps=1e-2, cv=5, random_state=0, max_iter=20_000).fit(x, y)
    return lasso.coef_, float(lasso.intercept_)


def build(weights: np.ndarray, bias: float) -> onnx.ModelProto:
    """Build `prediction = x W + b` with W [features, 1] a sparse initializer.

    Its values are float32 [nonzeros], its indices the linear form of COO, int64 [nonzeros].
    """
    support = np.flatnonzero(weights)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(weights[support].astype(np.float32), "weights"),
        numpy_helper.from_array(support.astype(np.int64), "weights_indices"),
        [len(weights), 1],
    )
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weights", "bias"], ["prediction"], name="regression")],
        NAME,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.array([bias], np.float32), "bias")],
        sparse_initializer=[sparse],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def main() -> None:
    """Write the model, its calibration and test inputs and their targets."""
    measured, target = load_diabetes(return_X_y=True)
    train, rest = train_test_split(np.arange(len(target)), test_size=0.4, random_state=0)
    calibration, test = train_test_split(rest, test_size=0.5, random_state=0)
    features = make_pipeline(
        StandardScaler(), PolynomialFeatures(3, include_bias=False), StandardScaler()
    ).fit(measured[train])
    weights, bias = fit(features.transform(measured[train]), target[train])
    model = build(weights, bias)
    onnx.checker.check_model(model)  # full_check refuses a sparse initializer that feeds a Gemm
    (HERE / f"{NAME}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for part, index in (("calibration", calibration), ("test", test)):
        x = features.transform(measured[index]).astype(np.float32)
        np.savez_compressed(HERE / f"{NAME}_{part}.npz", x=x)
    np.savez_compressed(
        HERE / f"{NAME}_targets.npz", calibration=target[calibration], test=target[test]
    )
    print(f"{NAME}.onnx written, {np.count_nonzero(weights)} of {len(weights)} weights not zero")


if __name__ == "__main__":
    main()
