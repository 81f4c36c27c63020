"""Train a simple linear recurrence on digits read row by row; the exporter unrolls its 10 steps.

Run `python models/make_simple_rnn.py` with torch, onnxscript and scikit-learn installed.
"""

from __future__ import annotations

import torch
from digits_data import HERE, PARTS, digits, resize, save_inputs
from torch import nn
from torch_export import export, seed, train

STEPS, HIDDEN, CLASSES = 10, 128, 10


class SimpleRnn(nn.Module):
    """`hidden = i2h([x, hidden])`, `output = log_softmax(i2o([x, hidden]))` at each of 10 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.i2h = nn.Linear(STEPS + HIDDEN, HIDDEN)
        self.i2o = nn.Linear(STEPS + HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Log probabilities [batch, 10] after each row of images [batch, 10, 10]."""
        hidden = x.new_zeros(x.shape[0], HIDDEN)
        outputs = []
        for step in range(STEPS):
            combined = torch.cat([x[:, step], hidden], dim=1)
            hidden = self.i2h(combined)
            outputs.append(torch.log_softmax(self.i2o(combined), dim=1))
        return outputs


def loss(outputs: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log likelihood, where half of the weight is on the last step."""
    steps = torch.stack([nn.functional.nll_loss(output, labels) for output in outputs])
    return (steps[:-1].mean() + steps[-1]) / 2


def main() -> None:
    """Write the model and its calibration and test inputs."""
    parts = digits()
    inputs = {part: resize(parts[part].images, STEPS) for part in PARTS}
    seed(0)
    module = SimpleRnn()
    train(module, inputs["train"], parts["train"].labels, epochs=100, loss=loss)
    names = [f"log_probabilities_{step}" for step in range(STEPS)]
    export(module, inputs["train"][:4], HERE / "simple_rnn_unrolled.onnx", names)
    save_inputs("simple_rnn_unrolled", inputs)
    print("simple_rnn_unrolled.onnx written")


if __name__ == "__main__":
    main()
