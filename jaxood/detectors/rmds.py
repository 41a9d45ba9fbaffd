"""Relative Mahalanobis distance: to the nearest class, less that to the training set as a whole.

  score = -min_k (M_k(z) - M_0(z))
  M_k(z) = (z - mu_k)^T S^+ (z - mu_k), S as for `mahalanobis`; M_0: mean and covariance of all

Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan: "A Simple Fix to Mahalanobis Distance for Improving
Near-OOD Detection", 2021, eq. 2, on the penultimate features, as in OpenOOD; `rmds++` on these
L2-normalised (Mueller, Hein: "Mahalanobis++: Improving OOD Detection via Feature Normalization",
ICML 2025). Classes without training images are left out.

With no more training images than channels the two covariances leave out different directions, and
their difference is the difference of the directions: refused.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.mahalanobis import (
    MahalanobisState,
    each_row_alike,
    fit_gaussians,
    nearest_mean,
    whitened,
)
from jaxood.detectors.statistics import as_is, l2_normalised
from jaxood.errors import require
from jaxood.heads import normalised


class RMDSState(NamedTuple):
    """`whiten` and `means` of the classes; `background` whitens by the covariance of all."""

    shift: Float[Array, " c"]
    scale: Float[Array, " c"]
    whiten: Float[Array, "c c"]
    means: Float[Array, "k c"]
    background: Float[Array, "c c"]


@dataclass(frozen=True)
class _Relative(Detector):
    """What the two share."""

    State: ClassVar[type] = RMDSState
    needs_train: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("rcond",)

    rcond: float = 1e-6

    def __post_init__(self):
        require(0 <= self.rcond < 1, f"{self.name}.rcond", self.rcond, "at least 0, below 1")

    def check(self, labels, classes):
        name, got = f"method {self.name}", "training images of a single class, which is the whole"
        require(len(np.unique(labels)) > 1, name, got, "images of two classes at least")

    def _fit(self, rows, labels, prepare):
        count, c = rows.shape
        got = f"{count} training images of {c} channels"
        require(count > c, f"method {self.name}", got, f"more than {c} training images")
        one = np.zeros(count, int)
        how = self.rcond, each_row_alike, prepare
        classes = fit_gaussians(self.name, rows, labels, *how)
        background = fit_gaussians(self.name, rows, one, *how)
        return RMDSState(*classes, background.whiten)

    @staticmethod
    def _score(state, rows):
        classes = MahalanobisState(*state[:-1])
        _, distance = nearest_mean(whitened(classes, rows), state.means)
        everything = whitened(classes._replace(whiten=state.background), rows)
        return jnp.sum(everything**2, axis=1) - distance


@dataclass(frozen=True)
class RMDS(_Relative):
    """Relative Mahalanobis distance on the penultimate features."""

    name: ClassVar[str] = "rmds"
    paper: ClassVar[str] = "Ren, Fort, Liu et al., 2021"

    def fit(self, train, labels, head):
        return self._fit(train.penultimate, labels, as_is)

    def score(self, state, outputs, head):
        return self._score(state, outputs.penultimate)


@dataclass(frozen=True)
class RMDSPlusPlus(_Relative):
    """Relative Mahalanobis distance of features at length 1."""

    name: ClassVar[str] = "rmds++"
    paper: ClassVar[str] = "Mueller, Hein, ICML 2025"

    def fit(self, train, labels, head):
        return self._fit(train.penultimate, labels, l2_normalised)

    def score(self, state, outputs, head):
        return self._score(state, normalised(outputs.penultimate))
