"""Gram statistics of layers, and how far they leave the range of the class.

  G^q_i = (sum_j sum_s F_is^q F_js^q)^(1/q)          channels i j, positions s, orders q = 1..Q
  D_l   = sum_q,i ( relu(min_t - G) / |min_t + 1e-6| + relu(G - max_t) / |max_t + 1e-6| )
  score = -sum_l D_l / E_l

min_t and max_t: over the training images that are predicted as the class t = argmax logits.
E_l: the mean of D_l over a tenth of the training images of each class, which are left out of the
ranges; 1 where no class has ten images, and where none of the tenth leaves its range.

Sastry & Oore: "Detecting Out-of-Distribution Examples with Gram Matrices", ICML 2020. Departures:
by default the last layer of each block, not all (`layers=all`), and Q = 5, not 10, as l Q c floats
are kept for every image, c of the widest layer; the paper takes the tenth from validation images.
A class that is never predicted in training has the range of all training images. A model without
named layers has one, its feature map.

A view or a transform changes only the prediction t here, not the statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.context import LayerExtractor
from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.layers import side_by_side
from jaxood.errors import require
from jaxood.outputs import top_classes

LEFT_OUT = 10  # one image of so many of a class


@dataclass(frozen=True)
class GramStatistics(LayerExtractor):
    """The row sums of the Gram matrices of orders 1 to `orders`, a row a layer."""

    name: ClassVar[str] = "gram"
    version: ClassVar[int] = 2

    orders: int = 5
    layers: str = "ends"

    def reduce(self, maps: Sequence[Float[Array, "n _ _ _"]]) -> Float[Array, "n l d"]:
        return side_by_side([self._of(layer) for layer in maps])

    def _of(self, layer: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        n, h, w, c = layer.shape
        values = layer.reshape(n, h * w, c)
        # Powers up to twice the order: without the two scales they leave float32's range.
        peaks = jnp.maximum(_largest_magnitudes(values), 1e-30)
        largest = peaks.max(axis=2, keepdims=True)
        heights, ratios = values / peaks, peaks / largest
        statistics, power, ratio = [], heights, ratios
        for order in range(1, self.orders + 1):
            total = jnp.einsum("npc,noc->np", power, ratio, precision="highest")
            rows = jnp.einsum("npc,np->nc", power, total, precision="highest")
            root = jnp.sign(rows) * jnp.abs(rows) ** (1 / order)
            statistics.append(root * peaks[:, 0] * largest[:, 0])
            power, ratio = power * heights, ratio * ratios
        return jnp.concatenate(statistics, axis=1)


def _largest_magnitudes(values: Float[Array, "n p c"]) -> Float[Array, "n 1 c"]:
    """Compared as whole numbers, which have the order of floats without a sign: half the time.

    XLA's CPU compiler does not vectorise the maximum of floats, as one may be no number.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(values), jnp.int32)
    return jax.lax.bitcast_convert_type(bits.max(axis=1, keepdims=True), jnp.float32)


class GramState(NamedTuple):
    low: Float[Array, "k l d"]
    high: Float[Array, "k l d"]
    expected: Float[Array, " l"]


@dataclass(frozen=True)
class Gram(Detector):
    """Minus the deviation from the predicted class's range."""

    name: ClassVar[str] = "gram"
    paper: ClassVar[str] = "Sastry, Oore, ICML 2020"
    State: ClassVar[type] = GramState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    orders: int = 5
    layers: str = "ends"

    def __post_init__(self):
        require(self.orders > 0, "gram.orders", self.orders, "a positive number")

    @property
    def extractors(self):
        return (GramStatistics(self.orders, self.layers),)

    def _statistics(self, outputs):
        return outputs.extras[self.extractors[0].key]

    def fit(self, train, labels, head):
        statistics = np.asarray(self._statistics(train))
        predicted = top_classes(train.logits)
        k = train.logits.shape[1]
        low = np.repeat(statistics.min(axis=0)[None], k, axis=0)
        high = np.repeat(statistics.max(axis=0)[None], k, axis=0)
        left_out = []
        for top in np.unique(predicted):
            members = statistics[predicted == top]
            first = len(members) // LEFT_OUT
            low[top], high[top] = members[first:].min(axis=0), members[first:].max(axis=0)
            left_out.append(_deviations(members[:first], low[top], high[top], np))
        return GramState(*map(jnp.asarray, (low, high, _expected(np.concatenate(left_out)))))

    def score(self, state, outputs, head):
        statistics, predicted = self._statistics(outputs), jnp.argmax(outputs.logits, axis=1)
        found = _deviations(statistics, state.low[predicted], state.high[predicted], jnp)
        return -jnp.sum(found / state.expected[None], axis=1)


def _deviations(statistics, low, high, numpy):
    """D of each layer, [n, l]."""
    below = numpy.maximum(low - statistics, 0) / numpy.abs(low + 1e-6)
    above = numpy.maximum(statistics - high, 0) / numpy.abs(high + 1e-6)
    return numpy.sum(below + above, axis=2)


def _expected(deviations: Float[np.ndarray, "n l"]) -> Float[np.ndarray, " l"]:
    means = deviations.sum(axis=0) / max(len(deviations), 1)
    return np.where(means > 0, means, 1.0).astype(np.float32)
