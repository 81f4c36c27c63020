"""Clusters of vectors that their means stand for, merged one pair at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """A partition of vectors.

    Parameters
    ----------
    members
        Row numbers of each cluster, ascending.
    error
        Largest over the clusters of squared distance to the mean over squared norm, both summed
        over the cluster.
    """

    members: tuple[tuple[int, ...], ...]
    error: float


def ward_merges(vectors: Matrix) -> list[Clusters]:
    """Merge clusters until one is left, each time the two whose means lose least.

    Ward, "Hierarchical Grouping to Optimize an Objective Function" (1963): the loss of merging
    clusters of sizes m and n with means a and b is ``m n / (m + n) |a - b|^2``.

    Parameters
    ----------
    vectors
        Float64 [count, size], at least two rows.

    Returns
    -------
    list of Clusters
        From ``count - 1`` clusters down to one; the errors do not fall.
    """
    clusters: list[tuple[int, ...]] = [(k,) for k in range(len(vectors))]
    means = list(vectors)
    energy = np.einsum("ij,ij->i", vectors, vectors)
    lost = [0.0] * len(vectors)
    found, error = [], 0.0
    while len(clusters) > 1:
        loss, i, j = min(
            (_loss(clusters, means, i, j), i, j) for j in range(len(clusters)) for i in range(j)
        )
        sizes = len(clusters[i]), len(clusters[j])
        means[i] = (sizes[0] * means[i] + sizes[1] * means[j]) / sum(sizes)
        lost[i] += lost[j] + loss
        clusters[i] = tuple(sorted(clusters[i] + clusters[j]))
        total = float(sum(energy[k] for k in clusters[i]))
        error = max(error, lost[i] / total if total > 0 else 0.0)
        for kept in (clusters, means, lost):
            del kept[j]
        found.append(Clusters(tuple(clusters), error))
    return found


def _loss(clusters: list[tuple[int, ...]], means: list[Matrix], i: int, j: int) -> float:
    away = means[i] - means[j]
    m, n = len(clusters[i]), len(clusters[j])
    return m * n / (m + n) * float(away @ away)
