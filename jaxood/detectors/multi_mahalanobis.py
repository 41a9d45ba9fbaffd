"""Mahalanobis distance to the nearest class mean, at several layers.

  score = sum_l -min_k (z_l - mu_lk)^T S_l^+ (z_l - mu_lk)

z_l: the mean of layer l over its positions (of tokens without the class token); mu_lk the class
means there, and S_l the covariance around them, shared by the classes.

Lee, Lee, Lee, Shin: "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", NeurIPS 2018 (OpenOOD's MDSEns). They weigh the layers by a logistic
regression on OOD or adversarial images. Here is no such image at hand when a method is fitted: the
layers are added up as they are, as in pytorch-ood, and no image is nudged beforehand.

By default the last layer of each block of the network; `layers=all`, or names joined by "/". A
model without named layers has one, its feature map. Kept for an image are l c floats, and for the
detector l c^2, c of the widest layer. S_l^+ leaves out directions as `mahalanobis` does.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Detector
from jaxood.detectors.layers import LayerMeans
from jaxood.detectors.mahalanobis import (
    MahalanobisState,
    each_row_alike,
    fit_gaussians,
    nearest_mean,
    whitened,
)
from jaxood.detectors.statistics import warn_of_few_rows
from jaxood.errors import require


class MultiMahalanobisState(NamedTuple):
    """`MahalanobisState` of each layer."""

    shift: Float[Array, "l c"]
    scale: Float[Array, "l c"]
    whiten: Float[Array, "l c c"]
    means: Float[Array, "l k c"]


@dataclass(frozen=True)
class MultiMahalanobis(Detector):
    """The sum over layers of minus the squared distance to the nearest class mean."""

    name: ClassVar[str] = "multi-mahalanobis"
    paper: ClassVar[str] = "Lee, Lee, Lee, Shin, NeurIPS 2018"
    State: ClassVar[type] = MultiMahalanobisState
    needs_train: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("rcond",)

    rcond: float = 1e-6
    layers: str = "ends"

    def __post_init__(self):
        require(0 <= self.rcond < 1, f"{self.name}.rcond", self.rcond, "at least 0, below 1")

    @property
    def extractors(self):
        return (LayerMeans(self.layers),)

    def _means(self, outputs):
        return outputs.extras[self.extractors[0].key]

    def fit(self, train, labels, head):
        rows = self._means(train)
        states = [
            fit_gaussians(self.name, rows[:, layer], labels, self.rcond, each_row_alike)
            for layer in range(rows.shape[1])
        ]
        # Without the zeros after the channels of the narrower layers.
        widest = max(int(np.count_nonzero(state.scale)) for state in states)
        warn_of_few_rows(self.name, len(rows), widest)
        return MultiMahalanobisState(*map(jnp.stack, zip(*states, strict=True)))

    def score(self, state, outputs, head):
        rows, total = self._means(outputs), 0.0
        for layer in range(rows.shape[1]):
            one = MahalanobisState(*(part[layer] for part in state))
            total = total - nearest_mean(whitened(one, rows[:, layer]), one.means)[1]
        return total
