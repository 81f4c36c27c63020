"""Where the nodes of a session were placed, by what onnxruntime itself says of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CPU_NAME = "CPUExecutionProvider"

_KERNEL = "_kernel_time"
_ALL = re.compile(r"All nodes placed on \[(\w+)\]\. Number of nodes: (\d+)")
_SOME = re.compile(r"Node\(s\) placed on \[(\w+)\]\. Number of nodes: \d+")
_NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(")


@dataclass(frozen=True)
class Placement:
    """How many nodes of each operator a provider has, and how many the CPU.

    Attributes
    ----------
    taken, left
        Nodes by operator, on the provider and on the CPU.
    partitions
        Pieces that the provider compiled; None for one that runs node by node.
    """

    taken: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    partitions: int | None = None

    @property
    def nodes(self) -> int:
        """All nodes."""
        return self.on_provider + sum(self.left.values())

    @property
    def on_provider(self) -> int:
        """Nodes that the provider has."""
        return sum(self.taken.values())


def assigned(groups: Iterable[Any], provider: str) -> Placement:
    """Read what ``session.get_provider_graph_assignment_info()`` returned.

    Parameters
    ----------
    groups
        A compiled piece, or a single node, each.
    provider
        onnxruntime's name of the provider.
    """
    on: dict[str, Counter[str]] = {provider: Counter(), CPU_NAME: Counter()}
    pieces = 0
    compiled = False
    for group in groups:
        nodes = [node.op_type for node in group.get_nodes()]
        on.setdefault(group.ep_name, Counter()).update(nodes)
        pieces += group.ep_name == provider
        compiled |= group.ep_name == provider and len(nodes) > 1
    return _of(on, provider, pieces if compiled else None)


def profiled(profile: Path, provider: str) -> Placement:
    """Read a profile: what ran where; a compiled piece is one node there.

    Parameters
    ----------
    profile
        The file that onnxruntime wrote.
    provider
        onnxruntime's name of the provider.
    """
    seen: dict[str, tuple[str, str]] = {}
    for event in json.loads(profile.read_text(encoding="utf-8", errors="replace")):
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            about = event["args"]
            seen[name] = about["provider"], about["op_name"]
    on: dict[str, Counter[str]] = {}
    for where, op_type in seen.values():
        on.setdefault(where, Counter())[op_type] += 1
    return _of(on, provider, None)


def logged(log: str, provider: str) -> Placement:
    """Read onnxruntime's verbose log, of a build that has no other way to tell.

    Parameters
    ----------
    log
        All that it wrote while the session was made.
    provider
        onnxruntime's name of the provider.
    """
    on: dict[str, Counter[str]] = {}
    here = None
    for line in log.splitlines():
        if found := _ALL.search(line):
            on.setdefault(found[1], Counter())["all operators"] += int(found[2])
            here = None
        elif found := _SOME.search(line):
            here = on.setdefault(found[1], Counter())
        elif here is not None and (found := _NODE.search(line)):
            here[found[1]] += 1
    return _of(on, provider, None)


def _of(on: Mapping[str, Counter[str]], provider: str, partitions: int | None) -> Placement:
    """Count everything that is not the provider's as left: another one is no better than the CPU.

    `Counter`s become plain dictionaries, most frequent first.
    """
    left: Counter[str] = Counter()
    for name, counted in on.items():
        if name != provider:
            left.update(counted)
    taken = on.get(provider, Counter[str]())
    return Placement(dict(taken.most_common()), dict(left.most_common()), partitions)
