"""ASH and SCALE: the largest activations of each image kept, or all of them scaled by their share.

With x the penultimate features of the image, K its c - round(c * percentile / 100) largest
channels, s1 the sum of x and s2 that over K:

  ash-p  x on K, 0 elsewhere                       percentile 60
  ash-b  s1 / |K| on K, 0 elsewhere                65
  ash-s  x exp(s1 / s2) on K, 0 elsewhere          90
  scale  x exp(s1 / s2)                            85

Djurisic, Bozanic, Ashok, Liu: "Extremely Simple Activation Shaping for Out-of-Distribution
Detection", ICLR 2023 (percentiles: their ImageNet ones); Xu, Chen, Franchi, Yao: "Scaling for
Training Time and Post-hoc Out-of-distribution Detection Enhancement", ICLR 2024. On
the features that enter the linear layer, as OpenOOD does it. Of equal values the first channels
are kept.

Both papers have features that are not negative: then s1 / s2 <= c / |K|. It is held below that,
which bounds the exponential where features are negative and s2 comes near zero.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxood.detectors.contract import Depth, Transform
from jaxood.errors import require
from jaxood.outputs import AnyArray, with_penultimate


def kept_count(c: int, percentile: float) -> int:
    return max(c - round(c * percentile / 100), 1)


def kept_channels(features: Float[AnyArray, "n c"], percentile: float) -> Bool[Array, "n c"]:
    """Marks the channels above the percentile of each row."""
    n, c = features.shape
    _, top = jax.lax.top_k(features, kept_count(c, percentile))
    return jnp.zeros((n, c), bool).at[jnp.arange(n)[:, None], top].set(True)


def sharpening(
    features: Float[AnyArray, "n c"], percentile: float
) -> tuple[Bool[Array, "n c"], Float[Array, "n 1"]]:
    """The kept channels, and exp(s1 / s2)."""
    kept, c = kept_channels(features, percentile), features.shape[1]
    whole = features.sum(axis=1, keepdims=True)
    part = jnp.where(kept, features, 0.0).sum(axis=1, keepdims=True)
    ratio = jnp.where(part == 0, 1.0, whole / jnp.where(part == 0, 1.0, part))
    return kept, jnp.exp(jnp.minimum(ratio, c / kept_count(c, percentile)))


@dataclass(frozen=True)
class _Shaping(Transform):
    """What the four share, but for the percentile that each was published with."""

    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    percentile: float

    def __post_init__(self):
        wanted = "at least 0, below 100"
        require(0 <= self.percentile < 100, f"{self.name}.percentile", self.percentile, wanted)


@dataclass(frozen=True)
class ASHP(_Shaping):
    """Prunes."""

    name: ClassVar[str] = "ash-p"
    paper: ClassVar[str] = "Djurisic, Bozanic, Ashok, Liu, ICLR 2023"

    percentile: float = 60.0

    def apply(self, state, outputs, head):
        kept = kept_channels(outputs.penultimate, self.percentile)
        return with_penultimate(outputs, jnp.where(kept, outputs.penultimate, 0.0), head)


@dataclass(frozen=True)
class ASHB(_Shaping):
    """Binarises: what is kept shares the sum of all evenly."""

    name: ClassVar[str] = "ash-b"
    paper: ClassVar[str] = "Djurisic, Bozanic, Ashok, Liu, ICLR 2023"

    percentile: float = 65.0

    def apply(self, state, outputs, head):
        kept = kept_channels(outputs.penultimate, self.percentile)
        count = kept_count(outputs.penultimate.shape[1], self.percentile)
        share = outputs.penultimate.sum(axis=1, keepdims=True) / count
        return with_penultimate(outputs, jnp.where(kept, share, 0.0), head)


@dataclass(frozen=True)
class ASHS(_Shaping):
    """Prunes, and sharpens what is left."""

    name: ClassVar[str] = "ash-s"
    paper: ClassVar[str] = "Djurisic, Bozanic, Ashok, Liu, ICLR 2023"

    percentile: float = 90.0

    def apply(self, state, outputs, head):
        kept, factor = sharpening(outputs.penultimate, self.percentile)
        return with_penultimate(outputs, jnp.where(kept, outputs.penultimate * factor, 0.0), head)


@dataclass(frozen=True)
class Scale(_Shaping):
    """Sharpens everything."""

    name: ClassVar[str] = "scale"
    paper: ClassVar[str] = "Xu, Chen, Franchi, Yao, ICLR 2024"

    percentile: float = 85.0

    def apply(self, state, outputs, head):
        _, factor = sharpening(outputs.penultimate, self.percentile)
        return with_penultimate(outputs, outputs.penultimate * factor, head)
