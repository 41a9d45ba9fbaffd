"""fDBD: mean distance of the feature to the decision boundaries, relative to its spread.

  score = 1/(k-1) sum_{j != t} |v_t - v_j| / ||w_t - w_j||  /  ||z - mu||,   t = argmax v

v the logits, w the columns of the linear layer, z the penultimate features, mu their mean over the
training set.

Liu & Qin: "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024, eq. 6. OpenOOD
has the sum in place of the mean: the same order; and where its search finds it better, ||z|| in
place of ||z - mu|| (`fdbd[by=norm]`). Two classes with the same weights have no boundary between
them, and count nothing.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import mean


class FDBDState(NamedTuple):
    centre: Float[Array, " c"]
    inverse_gaps: Float[Array, "k k"]  # 1 / ||w_i - w_j||, 0 where they are equal


@dataclass(frozen=True)
class FDBD(Detector):
    """Regularised mean distance to the decision boundaries."""

    name: ClassVar[str] = "fdbd"
    paper: ClassVar[str] = "Liu, Qin, ICML 2024"
    State: ClassVar[type] = FDBDState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    by: Literal["distance", "norm"] = "distance"

    def fit(self, train, labels, head):
        weights = np.asarray(head.kernel, np.float64).T
        gaps = np.stack([np.linalg.norm(weights - row, axis=1) for row in weights])
        inverse = np.where(gaps > 0, 1 / np.where(gaps > 0, gaps, 1.0), 0.0)
        centre = mean(train.penultimate)
        return FDBDState(jnp.asarray(centre, jnp.float32), jnp.asarray(inverse, jnp.float32))

    def score(self, state, outputs, head):
        logits = outputs.logits
        gaps = state.inverse_gaps[jnp.argmax(logits, axis=1)]
        distances = (logits.max(axis=1, keepdims=True) - logits) * gaps
        features = outputs.penultimate
        centred = features - state.centre[None, :] if self.by == "distance" else features
        spread = jnp.maximum(jnp.linalg.norm(centred, axis=1), 1e-12)
        return distances.sum(axis=1) / max(logits.shape[1] - 1, 1) / spread
