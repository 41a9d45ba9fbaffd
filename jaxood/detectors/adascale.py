"""AdaSCALE: SCALE with another percentile for every image, by how far a nudge moves it.

  x'  = x + epsilon sign(g) on the `o` of the pixel values with the smallest |g|,
        g = d max logit / dx
  Q'  = sum_{K1} relu(z') + lambda sum_{K2} |z' - z|        K1, K2: the k1 %, k2 % largest of z
  pct = low + (1 - F(Q')) (high - low)                      F: share of validation images below
  r   = sum relu(z) / sum over the channels above pct of relu(z)
  adascale-a: z exp(r)      adascale-l: logits r^2

z, z': penultimate features of x, x', as in OpenOOD.

Regmi: "AdaSCALE: Adaptive Scaling for OOD Detection", 2025, as in OpenOOD: lambda 10, o 5 %,
epsilon 0.5 (in normalised units), k1 5 %, k2 1 %, percentiles 80 to 85, the choice for ResNet-50.
OpenOOD takes up to 5,000 validation images for F; here it is all of them, and the training images
where there are none.

Q' is of the image as it came: a view or transform before changes z in r alone.

Signs and order of the smallest gradients are what float32 rounds most: the published definition in
torch, float32 against float64, differs in Q' by up to 2.6 % (rank correlation 0.990; MobileNetV2,
24 photographs). No implementation agrees with another more closely than that.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.context import Context, Extractor
from jaxood.detectors.contract import Depth, Split, Transform
from jaxood.errors import require
from jaxood.outputs import ModelOutputs, with_penultimate


@dataclass(frozen=True)
class NudgeResponse(Extractor):
    """The two sums in Q': over K1, and over K2."""

    name: ClassVar[str] = "adascale"

    k1: float = 5.0
    k2: float = 1.0
    o: float = 0.05
    epsilon: float = 0.5

    def __call__(self, context: Context) -> Float[Array, "n 2"]:
        gradient = jax.grad(lambda x: context.model(x).logits.max(axis=1).sum())(context.images)
        size = jnp.abs(gradient).reshape(len(gradient), -1)
        count = int(size.shape[1] * self.o)
        limit = jnp.sort(size, axis=1)[:, max(count - 1, 0)]
        # Where many are zero they are all within the limit, but then sign(g) is zero too.
        trivial = (jnp.abs(gradient) <= limit[:, None, None, None]) & (count > 0)
        step = jnp.where(trivial, self.epsilon * jnp.sign(gradient), 0.0)
        nudged = context.model(context.images + step.astype(context.images.dtype)).penultimate
        features = context.outputs.penultimate
        return jnp.stack(
            [
                self._largest(features, jax.nn.relu(nudged), self.k1),
                self._largest(features, jnp.abs(nudged - features), self.k2),
            ],
            axis=1,
        )

    @staticmethod
    def _largest(features, values, percent):
        _, top = jax.lax.top_k(features, max(int(features.shape[1] * percent / 100), 1))
        return jnp.take_along_axis(values, top, axis=1).sum(axis=1)


class AdaScaleState(NamedTuple):
    sorted_responses: Float[Array, " b"]


@dataclass(frozen=True)
class _AdaScale(Transform):
    """What both forms share."""

    paper: ClassVar[str] = "Regmi, 2025"
    State: ClassVar[type] = AdaScaleState
    needs_train: ClassVar[bool] = True
    fits_on: ClassVar[Split] = "validation"
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("low", "high", "lmbda")

    low: float = 80.0
    high: float = 85.0
    lmbda: float = 10.0
    k1: float = 5.0
    k2: float = 1.0
    o: float = 0.05
    epsilon: float = 0.5

    def __post_init__(self):
        got = f"{self.low} and {self.high}"
        wanted = "percentiles, 0 <= low <= high < 100"
        require(
            0 <= self.low <= self.high < 100, f"{self.name}.low and {self.name}.high", got, wanted
        )
        require(0 < self.k1 <= 100, f"{self.name}.k1", self.k1, "a percentage of the channels")
        require(0 < self.k2 <= 100, f"{self.name}.k2", self.k2, "a percentage of the channels")
        require(0 < self.o <= 1, f"{self.name}.o", self.o, "a fraction of the pixel values")

    @property
    def extractors(self):
        return (NudgeResponse(self.k1, self.k2, self.o, self.epsilon),)

    def _responses(self, outputs):
        sums = outputs.extras[self.extractors[0].key]
        return sums[:, 0] + self.lmbda * sums[:, 1]

    def fit(self, train, labels, head):
        return AdaScaleState(jnp.asarray(np.sort(np.asarray(self._responses(train)))))

    def ratio(self, state: AdaScaleState, outputs: ModelOutputs) -> Float[Array, "n 1"]:
        """r of each row."""
        known = state.sorted_responses
        below = jnp.searchsorted(known, self._responses(outputs), side="right") / len(known)
        percentile = self.low + (1 - below) * (self.high - self.low)
        values = -jnp.sort(-jax.nn.relu(outputs.penultimate), axis=1)
        c = values.shape[1]
        keep = jnp.maximum(c - jnp.round(c * percentile / 100), 1).astype(jnp.int32)
        kept = jnp.where(jnp.arange(c)[None, :] < keep[:, None], values, 0.0)
        part = kept.sum(axis=1, keepdims=True)
        whole = values.sum(axis=1, keepdims=True)
        return jnp.where(part == 0, 1.0, whole / jnp.where(part == 0, 1.0, part))


@dataclass(frozen=True)
class AdaScaleA(_AdaScale):
    """Scales the penultimate features."""

    name: ClassVar[str] = "adascale-a"
    needs_head: ClassVar[bool] = True

    def apply(self, state, outputs, head):
        factor = jnp.exp(self.ratio(state, outputs))
        return with_penultimate(outputs, outputs.penultimate * factor, head)


@dataclass(frozen=True)
class AdaScaleL(_AdaScale):
    """Scales the logits."""

    name: ClassVar[str] = "adascale-l"
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")
    changes_logits_only: ClassVar[bool] = True

    def apply(self, state, outputs, head):
        return outputs._replace(logits=outputs.logits * self.ratio(state, outputs) ** 2)
