"""Gram statistics of the last feature map, and how far they leave the range of the class.

  G^q_i = (sum_j sum_s F_is^q F_js^q)^(1/q)          channels i j, positions s, orders q = 1..Q
  score = -sum_q,i ( relu(min_t - G) / |min_t + 1e-6| + relu(G - max_t) / |max_t + 1e-6| )

min_t and max_t: over the training images that are predicted as the class t = argmax logits.

Sastry & Oore: "Detecting Out-of-Distribution Examples with Gram Matrices", ICML 2020. Departures:
the last map only, so that the paper's division by a layer's expected deviation changes no order;
and Q = 5, not 10, as Q c floats are kept for every image. A class that is never predicted in
training has the range of all training images.

A view or a transform changes only the prediction t here, not the statistics.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.context import Context, Extractor
from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require


@dataclass(frozen=True)
class GramStatistics(Extractor):
    """The row sums of the Gram matrices of orders 1 to `orders`."""

    name: ClassVar[str] = "gram"

    orders: int = 5

    def __call__(self, context: Context) -> Float[Array, "n d"]:
        feature_map = context.feature_map
        n, h, w, c = feature_map.shape
        values = feature_map.reshape(n, h * w, c)
        # Powers up to twice the order: without the two scales they leave float32's range.
        peaks = jnp.maximum(jnp.abs(values).max(axis=1, keepdims=True), 1e-30)
        largest = peaks.max(axis=2, keepdims=True)
        statistics = []
        for order in range(1, self.orders + 1):
            total = ((values / largest) ** order).sum(axis=2)
            rows = jnp.einsum("npc,np->nc", (values / peaks) ** order, total, precision="highest")
            root = jnp.sign(rows) * jnp.abs(rows) ** (1 / order)
            statistics.append(root * peaks[:, 0] * largest[:, 0])
        return jnp.concatenate(statistics, axis=1)


class GramState(NamedTuple):
    low: Float[Array, "k d"]
    high: Float[Array, "k d"]


@dataclass(frozen=True)
class Gram(Detector):
    """Minus the deviation from the predicted class's range."""

    name: ClassVar[str] = "gram"
    paper: ClassVar[str] = "Sastry, Oore, ICML 2020"
    State: ClassVar[type] = GramState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    orders: int = 5

    def __post_init__(self):
        require(self.orders > 0, "gram.orders", self.orders, "a positive number")

    @property
    def extractors(self):
        return (GramStatistics(self.orders),)

    def _statistics(self, outputs):
        return outputs.extras[self.extractors[0].key]

    def fit(self, train, labels, head):
        statistics = np.asarray(self._statistics(train))
        predicted = np.asarray(train.logits).argmax(axis=1)
        k = train.logits.shape[1]
        low = np.repeat(statistics.min(axis=0)[None], k, axis=0)
        high = np.repeat(statistics.max(axis=0)[None], k, axis=0)
        for top in np.unique(predicted):
            members = statistics[predicted == top]
            low[top], high[top] = members.min(axis=0), members.max(axis=0)
        return GramState(jnp.asarray(low), jnp.asarray(high))

    def score(self, state, outputs, head):
        statistics, predicted = self._statistics(outputs), jnp.argmax(outputs.logits, axis=1)
        low, high = state.low[predicted], state.high[predicted]
        below = jax.nn.relu(low - statistics) / jnp.abs(low + 1e-6)
        above = jax.nn.relu(statistics - high) / jnp.abs(high + 1e-6)
        return -jnp.sum(below + above, axis=1)
