import tracemalloc

import numpy as np
import pytest

from jaxood.detectors.statistics import quantiles

FRACTIONS = [0.0, 0.001, 0.1, 1 / 3, 0.5, 0.9, 0.999, 1.0]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9000, 7)])
@pytest.mark.parametrize("kind", ["normal", "relu", "small", "equal"])
def test_quantiles_are_those_of_sorted_values(kind, shape):
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = {
        "normal": rows,
        "relu": np.maximum(rows, 0),
        "small": rows * np.float32(1e-40),  # subnormal ones too
        "equal": np.full_like(rows, -2.5),
    }[kind]
    expected = np.quantile(rows.astype(np.float64), FRACTIONS)
    np.testing.assert_allclose(quantiles(rows, FRACTIONS), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("value", "median"), [(np.nan, np.nan), (-np.nan, np.nan), (np.inf, 8.0), (-np.inf, 6.0)]
)
def test_quantiles_of_what_is_not_finite(value, median):
    """Of 0, 1, 2, 3, 4, 5, 6, `value`, 8, ..., 14."""
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    rows[2, 1] = value
    np.testing.assert_array_equal(quantiles(rows, [0.5]), [median])


def test_quantiles_without_a_copy_of_all_rows():
    rows = np.random.default_rng(0).normal(size=(1 << 18, 64)).astype(np.float32)
    tracemalloc.start()
    quantiles(rows, [0.9])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 4
