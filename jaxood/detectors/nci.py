"""NCI: how well the centred feature points along the weight of the predicted class.

  score = <w_t, z - mu> / ||z - mu|| + alpha ||z||_1,   t = argmax logits

w the columns of the linear layer, z the penultimate features, mu their mean over the training
set.

Liu & Qin: "Detecting Out-of-Distribution through the Lens of Neural Collapse", CVPR 2025; alpha
1e-4 as in OpenOOD.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import mean


class NCIState(NamedTuple):
    centre: Float[Array, " c"]


@dataclass(frozen=True)
class NCI(Detector):
    """Proximity to the predicted class's weight vector, and the feature's norm."""

    name: ClassVar[str] = "nci"
    paper: ClassVar[str] = "Liu, Qin, CVPR 2025"
    State: ClassVar[type] = NCIState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")
    numbers: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 1e-4

    def fit(self, train, labels, head):
        return NCIState(jnp.asarray(mean(train.penultimate), jnp.float32))

    def score(self, state, outputs, head):
        features = outputs.penultimate
        centred = features - state.centre[None, :]
        weights = head.kernel.T[jnp.argmax(outputs.logits, axis=1)]
        spread = jnp.maximum(jnp.linalg.norm(centred, axis=1), 1e-12)
        along = jnp.sum(weights * centred, axis=1) / spread
        return along + self.alpha * jnp.abs(features).sum(axis=1)
