from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg.codebook import codebook, rounded


def error(values, book):
    return np.linalg.norm(rounded(values, book) - values) / np.linalg.norm(values)


def test_normal_numbers_lose_what_lloyd_promises():
    values = np.random.default_rng(0).standard_normal(200_000)
    book = codebook(values, 255)
    assert book.size <= 255
    assert (np.diff(book) > 0).all()
    # Panter and Dite: 3^(1/2) pi / 2 variances over size squared, for many values.
    best = np.sqrt(np.sqrt(3) * np.pi / 2) / 255
    assert best < error(values, book) < 1.3 * best


def test_every_number_goes_to_the_nearest_value():
    values = np.random.default_rng(1).laplace(size=2000)
    book = codebook(values, 17)
    nearest = book[np.abs(values[:, None] - book).argmin(axis=1)]
    np.testing.assert_array_equal(rounded(values, book), nearest)
    # and every value is the mean of its numbers, nearly
    means = [values[nearest == value].mean() for value in book]
    np.testing.assert_allclose(means, book, atol=1e-2)


@pytest.mark.parametrize("values", [[3.0], [1.0, 1.0, 1.0], [-2.0, 5.0]])
def test_few_numbers_are_kept(values):
    values = np.array(values)
    np.testing.assert_allclose(rounded(values, codebook(values, 255)), values, atol=1e-12)


def test_more_values_are_never_worse():
    values = np.random.default_rng(2).standard_normal(5000)
    errors = [error(values, codebook(values, size)) for size in (2, 4, 16, 64, 255)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "values",
    [np.full(9, 1e30), np.array([1.0, np.nextafter(1.0, 2.0)] * 5), np.array([5e-324, 1e-323])],
)
def test_few_different_numbers_are_the_codebook(values):
    np.testing.assert_array_equal(codebook(values, 255), np.unique(values))
