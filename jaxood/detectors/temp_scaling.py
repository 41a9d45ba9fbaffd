"""Temperature scaling: the largest softmax probability at the temperature that calibrates it.

  p = max softmax(logits / T),   T = argmin of the negative log-likelihood of the labels
  score = log(p / (1 - p))

Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", ICML 2017. T is fitted on
validation images, and on training images where there are none, by finding the root of the
derivative with respect to 1/T, which rises (the likelihood is convex in it).
Where every training image is classified rightly no T is best, the smaller the better: T is kept
between 0.05 and 20. There p is 1 to the last bit for most images; its log-odds have the same order
and still tell them apart.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector, Split
from jaxood.detectors.statistics import blocks

LOWEST, HIGHEST = 0.05, 20.0


class TempScalingState(NamedTuple):
    temperature: Float[Array, ""]


def _slope(inverse: float, logits, labels) -> float:
    """Derivative of the mean negative log-likelihood with respect to 1/T."""
    total = 0.0
    for rows, block in blocks(logits):
        weights = np.exp((block - block.max(axis=1, keepdims=True)) * inverse)
        expected = (weights * block).sum(axis=1) / weights.sum(axis=1)
        total += np.sum(expected - np.take_along_axis(block, labels[rows, None], axis=1)[:, 0])
    return total / len(logits)


@dataclass(frozen=True)
class TempScaling(Detector):
    """Log-odds of the largest probability after calibration."""

    name: ClassVar[str] = "temp_scaling"
    paper: ClassVar[str] = "Guo, Pleiss, Sun, Weinberger, ICML 2017"
    State: ClassVar[type] = TempScalingState
    needs_train: ClassVar[bool] = True
    fits_on: ClassVar[Split] = "validation"
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def fit(self, train, labels, head):
        from scipy.optimize import brentq

        arguments = (train.logits, np.asarray(labels, int))
        if _slope(1 / LOWEST, *arguments) <= 0:
            inverse = 1 / LOWEST
        elif _slope(1 / HIGHEST, *arguments) >= 0:
            inverse = 1 / HIGHEST
        else:
            inverse = brentq(_slope, 1 / HIGHEST, 1 / LOWEST, arguments, xtol=1e-7)
        return TempScalingState(jnp.asarray(1 / inverse, jnp.float32))

    def score(self, state, outputs, head):
        scaled = outputs.logits / state.temperature
        behind = scaled - scaled.max(axis=1, keepdims=True)
        largest = jnp.argmax(scaled, axis=1)[:, None] == jnp.arange(scaled.shape[1])[None, :]
        return -jax.nn.logsumexp(jnp.where(largest, -jnp.inf, behind), axis=1)
