"""pNML: minus the regret of the last layer, had it been trained on the image too.

  score = -log sum_i p_i / (p_i + (1 - p_i) p_i^g) / log k
  g = x / (1 + x),   x = zbar^T (Z^T Z)^+ zbar

zbar the penultimate feature at length 1, Z all such of the training set, p the softmax of what the
linear layer makes of zbar.

Bibas, Feder, Hassner: "Single Layer Predictive Normalized Maximum Likelihood for
Out-of-Distribution Detection", NeurIPS 2021, as in the authors' code. Directions with less than
`rcond` of the largest second moment, which the training set does not span, get no say.

The sum is 1 plus a little for an image that the model is sure of. As sum p_i = 1, the little is

  sum_i p_i (1 - p_i) (1 - p_i^g) / (p_i + (1 - p_i) p_i^g)

which has no cancellation.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import (
    covariance,
    l2_normalised,
    pseudo_whitener,
    warn_of_few_rows,
)
from jaxood.errors import require
from jaxood.heads import normalised


class PNMLState(NamedTuple):
    whiten: Float[Array, "c c"]  # W W^T = (Z^T Z)^+


@dataclass(frozen=True)
class PNML(Detector):
    """Minus the normalised regret; needs no labels."""

    name: ClassVar[str] = "pnml"
    paper: ClassVar[str] = "Bibas, Feder, Hassner, NeurIPS 2021"
    State: ClassVar[type] = PNMLState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("rcond",)

    rcond: float = 1e-12

    def __post_init__(self):
        require(0 <= self.rcond < 1, "pnml.rcond", self.rcond, "at least 0, below 1")

    def fit(self, train, labels, head):
        rows = train.penultimate
        warn_of_few_rows(self.name, *rows.shape)
        origin, group = np.zeros((1, rows.shape[1])), np.zeros(len(rows), int)
        moment = covariance(rows, origin, group, np.ones(1), l2_normalised)
        whiten, _ = pseudo_whitener(moment, self.rcond)
        return PNMLState(jnp.asarray(whiten, jnp.float32))

    def score(self, state, outputs, head):
        rows = normalised(outputs.penultimate)
        log_p = jax.nn.log_softmax(head.classify(rows), axis=1)
        other = -jnp.expm1(log_p)  # 1 - p
        x = jnp.sum(jnp.matmul(rows, state.whiten, precision="highest") ** 2, axis=1, keepdims=True)
        g = x / (1 + x)
        genie = jax.nn.sigmoid((1 - g) * log_p - jnp.log(other))  # p / (p + (1 - p) p^g)
        more = jnp.sum(genie * other * -jnp.expm1(g * log_p), axis=1)
        return -jnp.log1p(more) / math.log(max(log_p.shape[1], 2))
