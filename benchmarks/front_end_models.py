"""A small classifier of digits from each front end, trained a little and exported its own way.

Each function writes a model and returns what the front end itself makes of images: a function from
float32 [n, 8, 8], grey levels from 0 to 1, to the model's outputs in order.
"""

# ruff: noqa: PLC0415 - a front end that is missing must take no other with it

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import older_exporters
import onnx

from structopt_onnx.runtime.session import Session

MODELS = Path(__file__).resolve().parent.parent / "models"
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Digits:
    """The handwritten digits that the repository ships.

    Attributes
    ----------
    train, calibration, test
        float32 [n, 8, 8], grey levels from 0 to 1.
    labels
        int64 [n], of `train`.
    """

    train: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    test: np.ndarray

    @classmethod
    def shipped(cls) -> Digits:
        """Read them."""
        part = {p: np.load(MODELS / f"digits_gru_{p}.npz")["x"] for p in ("calibration", "test")}
        labels = np.load(MODELS / "digits_labels.npz")["train"]
        return cls(np.load(MODELS / "digits_train.npz")["x"], labels, **part)


def _torch(digits: Digits, path: Path, **how: Any) -> Run:  # noqa: ANN401 - torch's own options
    """Train convolutions with normalizations and an LSTM over the rows of their map."""
    import torch
    from torch import nn

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                nn.MaxPool2d(2),
            )  # fmt: skip
            self.lstm = nn.LSTM(64, 48, batch_first=True)
            self.head = nn.Linear(48, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.body(x).permute(0, 2, 1, 3).flatten(2)
            return self.head(self.lstm(rows)[0][:, -1])

    torch.manual_seed(0)
    module, images = Rows(), torch.from_numpy(digits.train[:, None])
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        logits = module(images)
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(digits.labels)).backward()
        optimizer.step()
    module.eval()
    torch.onnx.export(
        module, (images[:2],), path, input_names=["x"], output_names=["logits"], verbose=False,
        **how,
    )  # fmt: skip

    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [module(torch.from_numpy(x[:, None])).numpy()]

    return run


def torch_dynamo(digits: Digits, path: Path) -> Run:
    """Export by torch's current exporter."""
    import torch

    return _torch(digits, path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},))


def torch_script(digits: Digits, path: Path) -> Run:
    """Export by torch's older exporter, TorchScript's."""
    return _torch(digits, path, dynamo=False, dynamic_axes={"x": {0: "batch"}})


def _scikit_learn(model: Any, digits: Digits, path: Path) -> Run:  # noqa: ANN401 - any estimator
    from skl2onnx import to_onnx

    rows = digits.train.reshape(-1, 64)
    model.fit(rows, digits.labels)
    # ZipMap would make a list of dictionaries of the probabilities; see the README's limits.
    path.write_bytes(to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString())

    def run(x: np.ndarray) -> list[np.ndarray]:
        rows = x.reshape(-1, 64)
        return [model.predict(rows), model.predict_proba(rows)]

    return run


def _perceptron() -> Any:  # noqa: ANN401 - scikit-learn ships no types
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((128, 128), max_iter=60, tol=1e-2, random_state=0)


def sklearn_mlp(digits: Digits, path: Path) -> Run:
    """Export scikit-learn's MLPClassifier."""
    return _scikit_learn(_perceptron(), digits, path)


def sklearn_logistic(digits: Digits, path: Path) -> Run:
    """Export scikit-learn's LogisticRegression."""
    from sklearn.linear_model import LogisticRegression

    return _scikit_learn(LogisticRegression(max_iter=500), digits, path)


def sklearn_pipeline(digits: Digits, path: Path) -> Run:
    """Export a scaler, principal components and an MLPClassifier in a row."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _scikit_learn(
        make_pipeline(StandardScaler(), PCA(40, random_state=0), _perceptron()), digits, path
    )


def _keras(digits: Digits, backend: str) -> Any:  # noqa: ANN401 - a model of keras, without types
    """Train convolutions, plain and separable, in the layout NHWC, and an LSTM over rows."""
    os.environ["KERAS_BACKEND"] = backend
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 1), name="x")
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(y))
    y = layers.SeparableConv2D(32, 3, padding="same", use_bias=False)(y)
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(y))
    y = layers.MaxPooling2D()(y)
    y = layers.LSTM(48)(layers.Reshape((4, 128))(y))
    model = keras.Model(x, layers.Dense(10, name="logits")(y))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(digits.train[..., None], digits.labels, batch_size=128, epochs=8, verbose=0)
    return model


def keras_tensorflow(digits: Digits, path: Path) -> Run:
    """Export by Keras itself, on TensorFlow."""
    model = _keras(digits, "tensorflow")
    model.export(str(path), format="onnx", verbose=False)
    return lambda x: [np.asarray(model(x[..., None], training=False))]


def keras_torch(digits: Digits, path: Path) -> Run:
    """Export by Keras itself, on torch."""
    model = _keras(digits, "torch")
    model.export(str(path), format="onnx", verbose=False)
    return lambda x: [model(x[..., None], training=False).detach().numpy()]


def tensorflow(digits: Digits, path: Path) -> Run:
    """Export a TensorFlow function by tf2onnx."""
    model = _keras(digits, "tensorflow")
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, 8, 8, 1), tf.float32, name="x")]
    function = tf.function(lambda x: model(x, training=False))
    tf2onnx.convert.from_function(function, signature, opset=18, output_path=str(path))
    return lambda x: [np.asarray(model(x[..., None], training=False))]


def jax(digits: Digits, path: Path) -> Run:
    """Export a function of jax.numpy and lax in the layout NHWC by jax2onnx."""
    import jax
    import jax.numpy as jnp
    from jax2onnx import to_onnx

    layout = ("NHWC", "HWIO", "NHWC")
    shapes = ((3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (512, 128), (128,), (128, 10), (10,))
    rng = np.random.default_rng(0)
    weights = [
        jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(s[:-1])), s).astype(np.float32))
        if len(s) > 1
        else jnp.zeros(s, jnp.float32)
        for s in shapes
    ]

    def network(w: list[Any], x: Any) -> Any:  # noqa: ANN401 - tracers
        for (kernel, bias), step in ((w[:2], (1, 1)), (w[2:4], (2, 2))):
            x = jax.lax.conv_general_dilated(x, kernel, step, "SAME", dimension_numbers=layout)
            x = jax.nn.relu(x + bias)
        x = jax.nn.relu(x.reshape(x.shape[0], -1) @ w[4] + w[5])
        return x @ w[6] + w[7]

    def loss(w: list[Any], x: Any, labels: Any) -> Any:  # noqa: ANN401 - tracers
        scores = jax.nn.log_softmax(network(w, x))
        return -jnp.mean(scores[jnp.arange(len(labels)), labels])

    images, slope_of = jnp.asarray(digits.train[..., None]), jax.jit(jax.grad(loss))
    for _ in range(80):
        slopes = slope_of(weights, images, jnp.asarray(digits.labels))
        weights = [w - 0.1 * slope for w, slope in zip(weights, slopes, strict=True)]
    trained = weights
    model = to_onnx(lambda x: network(trained, x), [("B", 8, 8, 1)], model_name="digits")
    onnx.save(model, path)
    return lambda x: [np.asarray(network(trained, jnp.asarray(x[..., None])))]


def paddle(digits: Digits, path: Path) -> Run:
    """Export a network of PaddlePaddle by paddle2onnx."""
    import paddle
    from paddle import nn

    paddle.seed(0)
    model = nn.Sequential(
        nn.Conv2D(1, 16, 3, padding=1, bias_attr=False), nn.BatchNorm2D(16), nn.ReLU(),
        nn.Conv2D(16, 32, 3, padding=1, bias_attr=False), nn.BatchNorm2D(32), nn.Hardswish(),
        nn.MaxPool2D(2), nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    images, labels = paddle.to_tensor(digits.train[:, None]), paddle.to_tensor(digits.labels)
    optimizer = paddle.optimizer.Adam(3e-3, parameters=model.parameters())
    for _ in range(40):
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    model.eval()
    spec = [paddle.static.InputSpec([None, 1, 8, 8], "float32", "x")]
    paddle.onnx.export(model, str(path.with_suffix("")), input_spec=spec, opset_version=16)
    return lambda x: [model(paddle.to_tensor(x[:, None])).numpy()]


def _by_hand(model: onnx.ModelProto, path: Path) -> Run:
    """Write a hand-written model; digits_cnn, whose weights it has, says what is right."""
    onnx.save(model, path)
    session = Session(older_exporters.TRAINED)
    return lambda x: [session.run({"x": x[:, None]})["logits"]]


def mxnet_style(digits: Digits, path: Path) -> Run:  # noqa: ARG001 - already trained
    """Write by hand what MXNet's exporter wrote."""
    run = _by_hand(older_exporters.mxnet_style(), path)

    def probabilities(x: np.ndarray) -> list[np.ndarray]:
        powers = np.exp(run(x)[0])
        return [powers / powers.sum(axis=1, keepdims=True)]

    return probabilities


def cntk_style(digits: Digits, path: Path) -> Run:  # noqa: ARG001 - already trained
    """Write by hand what CNTK's exporter wrote."""
    return _by_hand(older_exporters.cntk_style(), path)
