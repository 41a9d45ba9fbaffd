"""WeiPer+KLD: how the values of one image's features spread, compared with the training images'.

  score = -(D(p, q_z) + lambda1 D(p~, q~_z) - lambda2 M)
  D(p, q) = KL(p || q) + KL(q || p)

The weights of every class are perturbed `repeats` times at random,

  w~_k = w_k + delta ||w_k|| e / ||e||,   e normal,

which gives k `repeats` perturbed logits. q_z is the histogram of the image's c penultimate features
over `bins` intervals of equal width from the smallest to the largest of all training features, p
the mean of it over the training images; q~_z and p~ the same of the perturbed logits; M the mean
over repeats of the largest softmax of perturbed logits. q_z is smoothed by a mean over s1 intervals
(q~_z over s2), and 0.01 (0.025) is added to all four before they are brought to a sum of 1.

Granz, Heurich, Landgraf: "WeiPer: OOD Detection using Weight Perturbations of Class Projections",
NeurIPS 2024. Parameters as the authors give them for a ResNet-50 on ImageNet; theirs for ViT-B/16
are delta=2, bins=80, lambda2=0.1. Values outside of the intervals are in none, but count in the
share of the others, as there.

Departures from the authors' code. It draws the perturbations anew for every batch; here they are
one draw, of `seed`, so that no score depends on the batch. Where there are more than 1,000 features
it takes the mean over groups of 1,000 whatever is in the last; here all weigh the same. The largest
training value is in the last interval, there it is in none.

The perturbed weights of 1,000 classes and 2,048 channels would take 820 MB: they are drawn again
for every block of rows, one repeat at a time.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require, require_seed
from jaxood.heads import Head

FLOORS = 0.01, 0.025  # added to the shares of features, and of perturbed logits
FIT_ROWS = 8192  # at once, as the perturbations are drawn again for every block


class WeiPerState(NamedTuple):
    """Ends of the intervals, and the training images' mean shares in them."""

    ends: Float[Array, "2"]
    shares: Float[Array, " b"]
    perturbed_ends: Float[Array, "2"]
    perturbed_shares: Float[Array, " b"]


def histogram(
    values: Float[Array, "n m"], ends: Float[Array, "2"], bins: int
) -> Float[Array, "n b"]:
    """How many values of each row are in each interval."""
    low, high = ends[0], ends[1]
    index = jnp.floor((values - low) * (bins / (high - low))).astype(jnp.int32)
    index = jnp.where((values >= low) & (values <= high), jnp.minimum(index, bins - 1), bins)
    rows = jnp.arange(len(values))[:, None]
    return jnp.zeros((len(values), bins + 1)).at[rows, index].add(1.0)[:, :bins]


def smoothed(shares: Float[Array, "n b"], size: int) -> Float[Array, "n b"]:
    """Means over `size` intervals; beyond the ends the outermost is repeated."""
    before = (size - 1) // 2
    padded = jnp.pad(shares, ((0, 0), (before, size - 1 - before)), mode="edge")
    sums = jnp.pad(jnp.cumsum(padded, axis=1), ((0, 0), (1, 0)))
    return (sums[:, size:] - sums[:, :-size]) / size


def divergence(p: Float[Array, " b"], q: Float[Array, "n b"], floor: float) -> Float[Array, " n"]:
    """KL(p || q) + KL(q || p), both with `floor` added."""
    p, q = ((part + floor) / (part + floor).sum(axis=-1, keepdims=True) for part in (p[None], q))
    return jnp.sum((p - q) * (jnp.log(p) - jnp.log(q)), axis=1)


@dataclass(frozen=True)
class WeiPer(Detector):
    """Minus the divergence of features and perturbed logits from those of training."""

    name: ClassVar[str] = "weiper"
    paper: ClassVar[str] = "Granz, Heurich, Landgraf, NeurIPS 2024"
    State: ClassVar[type] = WeiPerState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("delta", "lambda1", "lambda2")

    repeats: int = 100
    delta: float = 2.4
    bins: int = 100
    lambda1: float = 2.5
    lambda2: float = 0.25
    s1: int = 40
    s2: int = 15
    seed: int = 0

    def __post_init__(self):
        for name in ("repeats", "bins", "s1", "s2"):
            value = getattr(self, name)
            require(value > 0, f"weiper.{name}", value, "a positive number")
        for name in ("delta", "lambda1", "lambda2"):
            value = getattr(self, name)
            require(0 <= value < np.inf, f"weiper.{name}", value, "a number not below 0")
        require_seed("weiper.seed", self.seed)

    def perturbed(self, head: Head, repeat: Array) -> Float[Array, "c k"]:
        """The weights in one of the repeats."""
        weights = jnp.asarray(head.kernel)
        key = jax.random.key(self.seed, impl="threefry2x32")  # the same when a file is loaded
        noise = jax.random.normal(jax.random.fold_in(key, repeat), weights.shape)
        sizes, lengths = (jnp.linalg.norm(part, axis=0) for part in (weights, noise))
        return weights + self.delta * noise * (sizes / lengths)[None, :]

    def over_repeats(self, function, start, features, head):
        """Folds `function(carry, perturbed logits)` over the repeats."""

        def step(carry, repeat):
            product = jnp.matmul(features, self.perturbed(head, repeat), precision="highest")
            return function(carry, product + head.bias[None, :]), None

        return jax.lax.scan(step, start, jnp.arange(self.repeats))[0]

    def fit(self, train, labels, head):
        rows = np.asarray(train.penultimate)
        ends = np.asarray([rows.min(), rows.max()], np.float32)
        block = min(len(rows), FIT_ROWS)
        lows, highs = map_blocks(partial(_perturbed_ends, self, head), rows, block)
        perturbed_ends = np.asarray([lows.min(), highs.max()], np.float32)
        count = partial(_shares, self, head, jnp.asarray(ends), jnp.asarray(perturbed_ends))
        shares, perturbed_shares = (
            part.mean(axis=0, dtype=np.float64) for part in map_blocks(count, rows, block)
        )
        parts = (ends, shares, perturbed_ends, perturbed_shares)
        return WeiPerState(*(jnp.asarray(part, jnp.float32) for part in parts))

    def shares(self, head, ends, perturbed_ends, features):
        """Of each row: in the intervals of features, and of perturbed logits; and M."""

        def add(carry, logits):
            counts, confidence = carry
            largest = jnp.exp(logits.max(axis=1) - jax.nn.logsumexp(logits, axis=1))
            return counts + histogram(logits, perturbed_ends, self.bins), confidence + largest

        n, c = features.shape
        start = jnp.zeros((n, self.bins)), jnp.zeros(n)
        counts, confidence = self.over_repeats(add, start, features, head)
        size = self.repeats * head.kernel.shape[1]
        own = histogram(features, ends, self.bins) / c
        return own, counts / size, confidence / self.repeats

    def score(self, state, outputs, head):
        features = jnp.asarray(outputs.penultimate)
        own, perturbed, confidence = self.shares(head, state.ends, state.perturbed_ends, features)
        first = divergence(state.shares, smoothed(own, self.s1), FLOORS[0])
        second = divergence(state.perturbed_shares, smoothed(perturbed, self.s2), FLOORS[1])
        return -(first + self.lambda1 * second - self.lambda2 * confidence)


@partial(jax.jit, static_argnums=0)
def _perturbed_ends(weiper, head, rows):
    """The smallest and the largest perturbed logit of each row."""

    def extend(carry, logits):
        low, high = carry
        return jnp.minimum(low, logits.min(axis=1)), jnp.maximum(high, logits.max(axis=1))

    start = jnp.full(len(rows), jnp.inf), jnp.full(len(rows), -jnp.inf)
    return weiper.over_repeats(extend, start, rows, head)


@partial(jax.jit, static_argnums=0)
def _shares(weiper, head, ends, perturbed_ends, rows):
    return weiper.shares(head, ends, perturbed_ends, rows)[:2]
