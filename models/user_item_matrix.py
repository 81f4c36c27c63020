"""A synthetic user-item matrix: 50 latent factors of falling weight, plus noise."""

from __future__ import annotations

import numpy as np

USERS, ITEMS, RANK = 1000, 10_000, 50
NOISE = 0.01  # standard deviation of the noise over that of the clean matrix


def user_item_matrix() -> tuple[np.ndarray, np.ndarray]:
    """Make the matrix, always the same one.

    Returns
    -------
    clean, noisy
        float32 [1000, 10000]: of rank 50 with entries of variance 1, and the same plus noise.
    """
    rng = np.random.default_rng(0)
    weights = 1 / np.sqrt(np.arange(1, RANK + 1))
    weights /= np.linalg.norm(weights)
    clean = (rng.standard_normal((USERS, RANK)) * weights) @ rng.standard_normal((RANK, ITEMS))
    noisy = clean + NOISE * rng.standard_normal(clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def user_ids(part: str) -> np.ndarray:
    """Give the ids, int64 [200], of the users kept for `part`: calibration or test."""
    order = np.random.default_rng(1).permutation(USERS)
    return order[:200] if part == "calibration" else order[200:400]
