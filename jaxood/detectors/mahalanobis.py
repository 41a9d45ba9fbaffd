"""Mahalanobis distance to the nearest class mean, as published and as the NNGuide code has it.

  score = -min_k (z - mu_k)^T S^+ (z - mu_k)

Lee, Lee, Lee, Shin: "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", NeurIPS 2018, eq. 2, on the penultimate features alone (OpenOOD's MDS).
The NNGuide code reads pooled ones, before a norm that belongs to the head.

| name | z | S |
| mahalanobis | penultimate | covariance of all rows around their class mean |
| mahalanobis++ | penultimate, L2-normalised | the same: Mueller, Hein: "Mahalanobis++: Improving |
|  | | OOD Detection via Feature Normalization", ICML 2025 |
| mahalanobis-nnguide | pooled, L2-normalised, then standardised | unweighted mean over classes of |
|  | | the (biased) covariance of each |
| ssd | the same | one class, no labels: SSD of Sehwag et al., ICLR 2021, with one cluster |

The NNGuide code scores exp(-(distance / 2048) / 2), which underflows; minus the distance has the
same order. Classes without training images are left out, as there (OpenOOD's would give NaN).
S^+ leaves out directions with less than `rcond` of the largest variance; with no more training
images than channels that is many of them, which is said aloud.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import (
    as_is,
    class_means,
    covariance,
    l2_normalised,
    mean,
    pseudo_whitener,
    require_spread,
    warn_of_few_rows,
)
from jaxood.errors import require
from jaxood.heads import normalised
from jaxood.outputs import AnyArray


class MahalanobisState(NamedTuple):
    """Features are taken to `((z - shift) * scale) @ whiten` first; `means` live there."""

    shift: Float[Array, " c"]
    scale: Float[Array, " c"]
    whiten: Float[Array, "c c"]
    means: Float[Array, "k c"]


def nearest_mean(
    rows: Float[Array, "n c"], means: Float[Array, "k c"]
) -> tuple[Float[Array, "n c"], Float[Array, " n"]]:
    """Row minus its nearest mean, and the squared distance.

    The nearest is found by a product, as a broadcast would take n k c: 8 GB for n = k = 1000.
    The distance itself is then computed anew from the difference, without its cancellation.
    """
    product = jnp.matmul(rows, means.T, precision="highest")
    nearest = jnp.argmax(product - 0.5 * jnp.sum(means**2, axis=1)[None, :], axis=1)
    difference = rows - means[nearest]
    return difference, jnp.sum(difference**2, axis=1)


def whitened(state: MahalanobisState, rows: Float[AnyArray, "n c"]) -> Float[Array, "n c"]:
    centred = (rows - state.shift[None, :]) * state.scale[None, :]
    return jnp.matmul(centred, state.whiten, precision="highest")


def fit_gaussians(name, rows, labels, rcond, class_weights, prepare=as_is, standardise=False):
    """Class means and shared covariance, `class_weights(counts)` being the weight of a row.

    Raises:
      UsageError: for the method `name`, where rows do not differ within their class.
    """
    shift = mean(rows, prepare)
    variance = mean(rows, lambda block: (prepare(block) - shift) ** 2)
    size = mean(rows, lambda block: prepare(block) ** 2)
    moves = variance > np.finfo(np.float32).eps ** 2 * size  # else it is the rounding of a constant
    scale = moves / (np.sqrt(variance) + 1e-8 if standardise else 1.0)

    def standard(block):
        return (prepare(block) - shift) * scale

    group, counts, means = class_means(rows, labels, standard)
    scatter = covariance(rows, means, group, class_weights(counts), standard)
    require_spread(name, np.trace(scatter), variance @ scale**2)
    whiten, _ = pseudo_whitener(scatter, rcond)
    parts = (shift, scale, whiten, means @ whiten)
    return MahalanobisState(*(jnp.asarray(part, jnp.float32) for part in parts))


def each_row_alike(counts):
    return np.full(len(counts), 1 / counts.sum())


def _each_class_alike(counts):
    return 1 / (len(counts) * counts)


@dataclass(frozen=True)
class _Gaussians(Detector):
    """What the four share."""

    State: ClassVar[type] = MahalanobisState
    needs_train: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("rcond",)

    rcond: float = 1e-6

    def __post_init__(self):
        require(0 <= self.rcond < 1, f"{self.name}.rcond", self.rcond, "at least 0, below 1")


@dataclass(frozen=True)
class Mahalanobis(_Gaussians):
    """As published: penultimate features, covariance shared by the classes."""

    name: ClassVar[str] = "mahalanobis"
    paper: ClassVar[str] = "Lee, Lee, Lee, Shin, NeurIPS 2018"
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    def fit(self, train, labels, head):
        rows = train.penultimate
        state = fit_gaussians(self.name, rows, labels, self.rcond, each_row_alike)
        warn_of_few_rows(self.name, *rows.shape)
        return state

    def score(self, state, outputs, head):
        return -nearest_mean(whitened(state, outputs.penultimate), state.means)[1]


@dataclass(frozen=True)
class MahalanobisPlusPlus(_Gaussians):
    """As published, of features at length 1."""

    name: ClassVar[str] = "mahalanobis++"
    paper: ClassVar[str] = "Mueller, Hein, ICML 2025"
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    def fit(self, train, labels, head):
        rows, weights = train.penultimate, each_row_alike
        state = fit_gaussians(self.name, rows, labels, self.rcond, weights, l2_normalised)
        warn_of_few_rows(self.name, *rows.shape)
        return state

    def score(self, state, outputs, head):
        rows = normalised(outputs.penultimate)
        return -nearest_mean(whitened(state, rows), state.means)[1]


@dataclass(frozen=True)
class _NormalisedGaussians(_Gaussians):
    """The NNGuide code's: normalised rows, standardised channels, classes weigh the same."""

    reads: ClassVar[tuple[Depth, ...]] = ("pooled",)

    def _fit(self, pooled, labels):
        weights = _each_class_alike
        state = fit_gaussians(self.name, pooled, labels, self.rcond, weights, l2_normalised, True)
        warn_of_few_rows(self.name, *pooled.shape)
        return state

    def score(self, state, outputs, head):
        return -nearest_mean(whitened(state, normalised(outputs.pooled)), state.means)[1]


@dataclass(frozen=True)
class MahalanobisNNGuide(_NormalisedGaussians):
    """The NNGuide code's: normalised and standardised features, every class weighs the same."""

    name: ClassVar[str] = "mahalanobis-nnguide"
    paper: ClassVar[str] = "Park, Jung, Teoh, ICCV 2023"
    needs_labels: ClassVar[bool] = True

    def fit(self, train, labels, head):
        return self._fit(train.pooled, labels)


@dataclass(frozen=True)
class SSD(_NormalisedGaussians):
    """One Gaussian around all training features, which need no labels."""

    name: ClassVar[str] = "ssd"
    paper: ClassVar[str] = "Sehwag, Chiang, Mittal, ICLR 2021"

    def fit(self, train, labels, head):
        return self._fit(train.pooled, np.zeros(len(train.pooled), int))
