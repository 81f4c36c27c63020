"""Train the simple CNN on digits enlarged to 32 x 32.

Run `python models/make_simple_cnn.py` with torch, onnxscript and scikit-learn installed.
"""

from __future__ import annotations

from digits_data import HERE, PARTS, digits, resize, save_inputs
from torch import nn
from torch_export import export, seed, train

SIDE = 32


def simple_cnn() -> nn.Module:
    """One convolution, one 2x2 pool, so that the first linear layer takes 8 * 16 * 16 values."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def main() -> None:
    """Write the model and its calibration and test inputs."""
    parts = digits()
    inputs = {part: resize(parts[part].images, SIDE)[:, None] for part in PARTS}
    seed(0)
    module = simple_cnn()
    train(module, inputs["train"], parts["train"].labels, epochs=20)
    export(module, inputs["train"][:4], HERE / "simple_cnn.onnx", ["logits"])
    save_inputs("simple_cnn", inputs)
    print("simple_cnn.onnx written")


if __name__ == "__main__":
    main()
