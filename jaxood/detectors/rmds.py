"""Relative Mahalanobis distance: to the nearest class, less that to the training set as a whole.

  score = -min_k (M_k(z) - M_0(z))
  M_k(z) = (z - mu_k)^T S^+ (z - mu_k), S as for `mahalanobis`; M_0: mean and covariance of all

Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan: "A Simple Fix to Mahalanobis Distance for Improving
Near-OOD Detection", 2021, eq. 2. Classes without training images are left out.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Detector, require
from jaxood.detectors.mahalanobis import Mahalanobis, MahalanobisState, nearest_mean, whitened


class RMDSState(NamedTuple):
    """`whiten` and `means` of the classes; `background` whitens by the covariance of all."""

    shift: Float[Array, " c"]
    scale: Float[Array, " c"]
    whiten: Float[Array, "c c"]
    means: Float[Array, "k c"]
    background: Float[Array, "c c"]


@dataclass(frozen=True)
class RMDS(Detector):
    """Relative Mahalanobis distance on the pooled features."""

    rcond: float = 1e-6

    State: ClassVar = RMDSState
    needs_train: ClassVar = True
    needs_labels: ClassVar = True

    def __post_init__(self):
        require(0 <= self.rcond < 1, "rmds.rcond", self.rcond, "at least 0, below 1")

    def fit(self, train, labels, head):
        classes = Mahalanobis(self.rcond).fit(train, labels, head)
        one = np.zeros(len(train.pooled), int)
        background = Mahalanobis(self.rcond).fit(train, one, head)
        return RMDSState(*classes, background.whiten)

    def score(self, state, outputs, head):
        classes = MahalanobisState(*state[:-1])
        _, distance = nearest_mean(whitened(classes, outputs.pooled), state.means)
        everything = whitened(classes._replace(whiten=state.background), outputs.pooled)
        return jnp.sum(everything**2, axis=1) - distance
