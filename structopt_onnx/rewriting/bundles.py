"""Options that can be taken together: what one group of overlapping sites offers the planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from structopt_onnx.rewriting.planner import Item

Bundle = tuple[tuple[int, int], ...]
"""Pairs of a site's number and an option's, about weights that no two of them share."""

# Of thousands of ways to combine options these many are kept, spread over the savings.
_MOST_BUNDLES = 256


def bundles(
    sites: Sequence[tuple[int, frozenset[str]]],
    options: Callable[[int], Sequence[int]],
    item: Callable[[int, int], Item],
) -> list[Bundle]:
    """List the combinations of options of overlapping sites that may be best.

    A weight may be rewritten by itself or together with others. Sites about different weights can
    both be taken; sites that share one exclude each other. Of combinations about the same
    weights, those stay that no other beats in both weight and value.

    Parameters
    ----------
    sites
        Number and weights of each site of a group.
    options
        Numbers of the options of a site that may be taken.
    item
        Weight and value of an option; both add up.
    """
    found: dict[frozenset[str], list[tuple[float, float, Bundle]]] = {frozenset(): [(0.0, 0.0, ())]}
    for number, weights in sites:
        single = [(number, k, item(number, k)) for k in options(number)]
        extended: dict[frozenset[str], list[tuple[float, float, Bundle]]] = {}
        for taken, known in found.items():
            if not taken & weights:
                extended.setdefault(taken | weights, []).extend(
                    (w + i.weight, v + i.value, (*bundle, (n, k)))
                    for w, v, bundle in known
                    for n, k, i in single
                )
        for taken, more in extended.items():
            found[taken] = _best(found.get(taken, []) + more)
    return [bundle for known in found.values() for _, _, bundle in known if bundle]


def _best(known: list[tuple[float, float, Bundle]]) -> list[tuple[float, float, Bundle]]:
    front: list[tuple[float, float, Bundle]] = []
    for entry in sorted(known):
        if not front or entry[1] < front[-1][1]:
            front.append(entry)
    if len(front) <= _MOST_BUNDLES:
        return front
    step = (len(front) - 1) / (_MOST_BUNDLES - 1)
    return [front[round(k * step)] for k in range(_MOST_BUNDLES)]
