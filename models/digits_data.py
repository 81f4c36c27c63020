"""The handwritten digits of scikit-learn, split once for every model that uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
PARTS = ("train", "calibration", "test")


@dataclass(frozen=True)
class Part:
    """One part of the split.

    Attributes
    ----------
    images
        float32 [n, 8, 8], grey levels from 0 to 1.
    labels
        int64 [n], the digit drawn.
    """

    images: np.ndarray
    labels: np.ndarray


def digits() -> dict[str, Part]:
    """Split the 1797 images 60/20/20 into train, calibration and test, stratified by digit."""
    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    train, rest = train_test_split(
        np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0
    )
    calibration, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
    chosen = zip(PARTS, (train, calibration, test), strict=True)
    return {part: Part(images[index], labels[index]) for part, index in chosen}


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize square images [n, side, side] to [n, size, size], bilinear, in 256 grey levels.

    Pixel centres lie at half-integers and the border is repeated. Rounding to the levels that an
    image file would hold keeps the shipped data small.
    """
    side = images.shape[-1]
    centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side)))
    resized = weights @ images.astype(np.float64) @ weights.T
    levels: np.ndarray = np.round(resized * 255)
    return (levels / 255).astype(np.float32)


def save_inputs(name: str, inputs: dict[str, np.ndarray]) -> None:
    """Write `NAME_calibration.npz` and `NAME_test.npz`, each with the one model input `x`."""
    for part in ("calibration", "test"):
        np.savez_compressed(HERE / f"{name}_{part}.npz", x=inputs[part])
