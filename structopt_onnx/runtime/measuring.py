"""Paired samples of several models in this process: what the measuring process does all day."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, field
from itertools import cycle, islice, permutations
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from structopt_onnx.runtime.arm import Arm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structopt_onnx.runtime.arm import TypedFeed
    from structopt_onnx.runtime.options import SessionSettings

WARM_UPS = 8
# Sessions whose times differ by less run equally often in a sample, so equally warm.
_SIMILAR = 2.0
OVERTIME = 1.15
"""A slow comparison may take this many times its seconds: better than none at all."""

Control: TypeAlias = Literal["fresh session", "previous session", "none"]
"""The A/A control: one more session of A in each replicate, or A's of the replicate before."""


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes
    ----------
    replicates
        How often the sessions are created anew.
    pairs
        Samples of each arm in a replicate, as many as the time allows.
    min_pairs
        Fewer are not worth having.
    sample_ms
        A sample repeats the run until it lasts this long.
    seconds
        Time for all of it.
    seed
        Of the random orders.
    """

    replicates: int
    pairs: int
    min_pairs: int
    sample_ms: float
    seconds: float
    seed: int


@dataclass
class Samples:
    """Milliseconds per run, of each replicate, arm and pair, on both clocks.

    Where the time did not suffice, `too_slow` says so and `needed_s` is about what would have.
    """

    cpu_ms: list[list[list[float]]] = field(default_factory=list)
    wall_ms: list[list[list[float]]] = field(default_factory=list)
    creation_ms: list[list[float]] = field(default_factory=list)
    first_run_ms: list[list[float]] = field(default_factory=list)
    too_slow: str = ""
    needed_s: float = 0.0


def measure(
    paths: Sequence[Path],
    feeds: Sequence[TypedFeed],
    settings: SessionSettings,
    plan: Plan,
    control: Control,
) -> Samples:
    """Measure models against each other, in turns.

    Parameters
    ----------
    paths
        A model file per arm.
    feeds
        Arrays and their ONNX element types per input; pairs take them in turns.
    settings
        The same for all sessions.
    plan
        How much to measure.
    control
        What the first model is measured against to know how far it is from itself; it is one
        more arm, the last, but in the first replicate where no session precedes.

    Returns
    -------
    Samples
        With `too_slow` set, and too few replicates, if the time did not suffice.

    Raises
    ------
    ModelError
        If onnxruntime can't load or run a model.
    """
    rng = np.random.default_rng(plan.seed)
    deadline = time.perf_counter() + plan.seconds
    slots = [*paths, paths[0]] if control == "fresh session" else list(paths)
    samples = Samples()
    repeats: list[int] = []
    previous: list[Arm] = []
    for replicate in range(plan.replicates):
        started = time.perf_counter()
        opened = {int(n): Arm(slots[n], feeds, settings) for n in rng.permutation(len(slots))}
        arms = [opened.pop(n) for n in range(len(slots))]
        fastest = [arm.warm_up(WARM_UPS) for arm in arms]
        for arm in previous:
            arms.append(arm)
            fastest.append(arm.warm_up(1))
        repeats = repeats or _repeats(fastest[: len(paths)], plan.sample_ms)
        per_arm = [*repeats, repeats[0]][: len(arms)]
        now = time.perf_counter()
        pair_s = sum(ms * n for ms, n in zip(fastest, per_arm, strict=True)) / 1e3
        later = plan.replicates - replicate - 1
        share = (deadline - now - later * (now - started)) / (later + 1)
        pairs = min(plan.pairs, int(share / pair_s))
        # Once begun, a little more time is better than all of it lost.
        late = replicate == 0 or now > deadline + (OVERTIME - 1) * plan.seconds
        if pairs < plan.min_pairs and late:
            wanted = plan.replicates * (now - started + plan.min_pairs * pair_s)
            samples.needed_s = wanted
            samples.too_slow = shortage(plan.replicates, wanted, plan.seconds)
            return samples
        pairs = max(pairs, plan.min_pairs)
        cpu, wall = _sample_pairs(arms, per_arm, len(feeds), pairs, rng)
        samples.cpu_ms.append(cpu)
        samples.wall_ms.append(wall)
        samples.creation_ms.append([arm.creation_ms for arm in arms])
        samples.first_run_ms.append([arm.first_run_ms for arm in arms])
        previous = arms[:1] if control == "previous session" else []
        del arms
        gc.collect()
    return samples


def shortage(replicates: int, wanted: float, left: float) -> str:
    """Say that the seconds left are fewer than the replicates need."""
    return f"{replicates} replicates need about {wanted:.0f} s, {max(left, 0):.0f} s were left"


def balanced_orders(arms: int, pairs: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Orders of the arms, random but such that each order comes equally often.

    Parameters
    ----------
    arms
        How many arms.
    pairs
        How many orders.
    rng
        Source of the randomness.
    """
    every = list(permutations(range(arms)))
    orders: list[tuple[int, ...]] = []
    while len(orders) < pairs:
        orders += [every[n] for n in rng.permutation(len(every))]
    return orders[:pairs]


def _sample_pairs(
    arms: Sequence[Arm],
    repeats: Sequence[int],
    feeds: int,
    pairs: int,
    rng: np.random.Generator,
) -> tuple[list[list[float]], list[list[float]]]:
    """Time the arms in turns; return milliseconds per arm and pair on both clocks."""
    cpu: list[list[float]] = [[] for _ in arms]
    wall: list[list[float]] = [[] for _ in arms]
    turns = islice(cycle(range(feeds)), pairs)
    for order, feed in zip(balanced_orders(len(arms), pairs, rng), turns, strict=True):
        for slot in order:
            cpu_ms, wall_ms = arms[slot].sample(feed, repeats[slot])
            cpu[slot].append(cpu_ms)
            wall[slot].append(wall_ms)
    return cpu, wall


def _repeats(run_ms: Sequence[float], sample_ms: float) -> list[int]:
    """Choose the runs per sample: `sample_ms` long, equally many for arms of similar speed."""
    if max(run_ms) < _SIMILAR * min(run_ms):
        run_ms = [min(run_ms)] * len(run_ms)
    return [max(1, math.ceil(sample_ms / ms)) for ms in run_ms]
