from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from structopt_onnx.linalg.low_rank import from_output_moment
from structopt_onnx.linalg.workers import Workers


class Pickling(Executor):
    """Does at once what is submitted, after a trip through bytes."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    def submit(self, fn, /, *args, **kwargs):
        fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs)))
        self.submitted.append(fn.__name__)
        future: Future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        return future


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order(threads):
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n * n

    assert list(Workers(threads).each(slow_first, range(9))) == [n * n for n in range(9)]


@pytest.mark.parametrize("threads", [1, 3])
def test_few_items_are_looked_at_ahead(threads):
    looked = 0

    def items():
        nonlocal looked
        for n in range(50):
            looked += 1
            yield n

    results = Workers(threads).each(lambda n: n, items())
    next(results)
    assert looked <= threads
    results.close()
    assert looked <= threads


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)
    assert len(list(Workers(2).each(lambda _: both.wait(), range(2)))) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_where_its_result_was_due(threads):
    results = Workers(threads).each(lambda n: 1 // n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def _blas_threads(_: int = 0) -> set[int]:
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_the_linear_algebra_library_uses_one_thread_meanwhile(threads):
    before = _blas_threads()
    assert all(found <= {1} for found in Workers(threads).each(_blas_threads, range(3)))
    assert _blas_threads() == before


def test_what_is_solved_goes_to_the_executor():
    executor = Pickling()
    moment = np.diag([3.0, 2.0, 1.0])
    there = Workers(executor=executor).solve(from_output_moment, moment, most=2)
    here = Workers().solve(from_output_moment, moment, most=2)
    assert executor.submitted == ["from_output_moment"]
    np.testing.assert_array_equal(there.vectors, here.vectors)


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_the_executors_of_the_standard_library_do(make):
    kwargs = {}
    if make is ProcessPoolExecutor:
        from multiprocessing import get_context  # noqa: PLC0415 - for this one only

        kwargs = {"mp_context": get_context("spawn")}
    with make(1, **kwargs) as executor:
        basis = Workers(executor=executor).solve(from_output_moment, np.eye(3), 2)
    assert basis.total == 3.0
