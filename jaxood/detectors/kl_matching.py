"""KL matching: how near the prediction is to the typical prediction of some class.

  score = -min_k KL(p || q_k),   q_k = mean of p over training images predicted as k

Hendrycks, Basart, Mazeika et al.: "Scaling Out-of-Distribution Detection for Real-World
Settings", ICML 2022. The paper averages over a validation set, here it is the training set.
Classes that are never predicted there have no typical prediction and are left out.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import class_means


class KLMatchingState(NamedTuple):
    log_typical: Float[Array, "g k"]


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class KLMatching(Detector):
    """Minus the divergence to the nearest typical prediction; needs no labels."""

    name: ClassVar[str] = "kl_matching"
    paper: ClassVar[str] = "Hendrycks, Basart, Mazeika et al., ICML 2022"
    State: ClassVar[type] = KLMatchingState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def fit(self, train, labels, head):
        _, _, typical = class_means(train.logits, train.logits.argmax(axis=1), _softmax)
        smallest = np.finfo(np.float32).tiny  # its logarithm is finite, and so is the score
        return KLMatchingState(jnp.log(jnp.asarray(np.maximum(typical, smallest), jnp.float32)))

    def score(self, state, outputs, head):
        log_p = jax.nn.log_softmax(outputs.logits, axis=1)
        p = jnp.exp(log_p)
        # The divergence itself from the difference of the logarithms: a confident image's is
        # far smaller than the two sums that would be subtracted.
        nearest = jnp.argmax(jnp.matmul(p, state.log_typical.T, precision="highest"), axis=1)
        return -jnp.sum(p * (log_p - state.log_typical[nearest]), axis=1)
