from __future__ import annotations

from itertools import permutations

from structopt_onnx.model.exactness import Exactness


def test_the_weakest_promise_stands_for_all():
    for order in permutations(Exactness):
        assert Exactness.weakest(order) is Exactness.LOSSY
    assert Exactness.weakest([Exactness.ROUNDING, Exactness.BITWISE]) is Exactness.ROUNDING
    assert Exactness.weakest(iter([])) is Exactness.BITWISE
    assert [promise.rank for promise in Exactness] == [0, 1, 2]
