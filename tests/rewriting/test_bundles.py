from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
from hypothesis import given

from structopt_onnx.rewriting.bundles import bundles
from structopt_onnx.rewriting.planner import Item

_NAMES = st.frozensets(st.sampled_from("abc"), min_size=1)
_ITEMS = st.builds(Item, st.integers(1, 9).map(float), st.integers(-9, -1).map(float))
_SITES = st.lists(st.tuples(_NAMES, st.lists(_ITEMS, max_size=3)), min_size=1, max_size=4)


@given(_SITES)
def test_no_combination_of_sites_that_share_nothing_is_better(sites):
    found = bundles(
        [(n, names) for n, (names, _) in enumerate(sites)],
        lambda n: range(len(sites[n][1])),
        lambda n, k: sites[n][1][k],
    )

    def total(bundle) -> tuple[float, float]:
        items = [sites[n][1][k] for n, k in bundle]
        return sum(i.weight for i in items), sum(i.value for i in items)

    assert len(set(found)) == len(found)
    for bundle in found:
        taken = [name for n, _ in bundle for name in sites[n][0]]
        assert len(taken) == len(set(taken)) > 0
    for picks in product(*[[None, *range(len(options))] for _, options in sites]):
        bundle = [(n, k) for n, k in enumerate(picks) if k is not None]
        taken = [name for n, _ in bundle for name in sites[n][0]]
        if bundle and len(taken) == len(set(taken)):
            weight, value = total(bundle)
            assert any(w <= weight and v <= value for w, v in map(total, found))


def test_thousands_of_combinations_are_thinned_out_to_the_ends():
    items = [Item(float(2**k), -float(k + 1)) for k in range(12)]
    sites = [(n, frozenset({str(n)})) for n in range(4)]
    found = bundles(sites, lambda _: range(12), lambda _, k: items[k])
    assert max(map(len, found)) == 4
    everything = [bundle for bundle in found if len(bundle) == 4]
    assert len(everything) <= 256
    assert ((0, 0), (1, 0), (2, 0), (3, 0)) in everything
    assert ((0, 11), (1, 11), (2, 11), (3, 11)) in everything
