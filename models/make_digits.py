"""Train and export the three digits classifiers and write their calibration and test inputs.

Run `python models/make_digits.py` with torch, onnxscript and scikit-learn installed.
"""

from __future__ import annotations

import numpy as np
import torch
from digits_data import HERE, PARTS, digits, save_inputs
from torch import nn
from torch_export import export, seed, train


def mlp() -> nn.Module:
    """64-256-256-10 with ReLU; input [batch, 64]."""
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def cnn() -> nn.Module:
    """Two 3x3 convolutions, one 2x2 pool and two linear layers; input [batch, 1, 8, 8]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


class Gru(nn.Module):
    """A GRU reads the 8 rows of an image, its last state is classified; input [batch, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 96, batch_first=True)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of images [batch, 8, 8]."""
        _, last = self.gru(x)
        logits: torch.Tensor = self.head(last[0])
        return logits


BUILDERS = {  # module, input shape, epochs, highest learning rate
    "digits_mlp": (mlp, (64,), 60, 1e-3),
    "digits_cnn": (cnn, (1, 8, 8), 40, 1e-3),
    "digits_gru": (Gru, (8, 8), 100, 3e-3),
}


def main() -> None:
    """Write every digits file of this folder."""
    parts = digits()
    np.savez_compressed(
        HERE / "digits_labels.npz",
        train=parts["train"].labels,
        calibration=parts["calibration"].labels,
        test=parts["test"].labels,
    )
    np.savez_compressed(HERE / "digits_train.npz", x=parts["train"].images)
    for name, (build, shape, epochs, rate) in BUILDERS.items():
        inputs = {part: parts[part].images.reshape(-1, *shape) for part in PARTS}
        seed(0)
        module = build()
        train(module, inputs["train"], parts["train"].labels, epochs=epochs, rate=rate)
        export(module, inputs["train"][:4], HERE / f"{name}.onnx", ["logits"])
        save_inputs(name, inputs)
        print(f"{name}.onnx written")


if __name__ == "__main__":
    main()
