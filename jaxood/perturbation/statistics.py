"""Correlations, areas, intervals: what several measures take of their numbers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

Numbers = np.ndarray | np.floating  # NumPy gives no array where no axis is left


def area(curve: Float[np.ndarray, "*n t"], x: Sequence[float]) -> Numbers:
    """Trapezoid rule over x."""
    return np.trapezoid(curve, x, axis=-1)


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation; 0 where one of both does not vary."""
    a, b = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (a, b))
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / scale) if scale > 0 else 0.0


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one of both does not vary."""
    return pearson(rankdata(a), rankdata(b))


def mean_interval(
    curves: Float[np.ndarray, "n *t"], seed: int = 0, resamples: int = 1000
) -> tuple[Numbers, Numbers, Numbers]:
    """Mean over images and its 95 % interval by bootstrap over images."""
    n = len(curves)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples) / n
    low, high = np.quantile(np.tensordot(weights, curves, 1), [0.025, 0.975], axis=0)
    return curves.mean(axis=0), low, high
