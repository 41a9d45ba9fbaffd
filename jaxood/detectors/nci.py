"""NCI: how well the centred feature points along the weight of the predicted class.

  score = <w_t, z - mu> / ||z - mu|| + alpha ||z||_1,   t = argmax logits

w the columns of the linear layer, z what enters it, mu the mean training feature.

Liu & Qin: "Detecting Out-of-Distribution through the Lens of Neural Collapse", CVPR 2025; alpha
1e-4 as in OpenOOD.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Detector
from jaxood.detectors.statistics import mean, penultimate


class NCIState(NamedTuple):
    centre: Float[Array, " c"]


@dataclass(frozen=True)
class NCI(Detector):
    """Proximity to the predicted class's weight vector, and the feature's norm."""

    alpha: float = 1e-4

    State: ClassVar = NCIState
    needs_train: ClassVar = True

    def fit(self, train, labels, head):
        return NCIState(jnp.asarray(mean(penultimate(train, head)), jnp.float32))

    def score(self, state, outputs, head):
        features = head.penultimate(outputs.pooled)
        centred = features - state.centre[None, :]
        weights = head.kernel.T[jnp.argmax(outputs.logits, axis=1)]
        spread = jnp.maximum(jnp.linalg.norm(centred, axis=1), 1e-12)
        along = jnp.sum(weights * centred, axis=1) / spread
        return along + self.alpha * jnp.abs(features).sum(axis=1)
