"""ASH and SCALE: the largest activations of each image kept, or all of them scaled by their share.

With K the c - round(c * percentile / 100) largest channels of the image, s1 the sum of its
pooled features and s2 that over K:

  ash-p  x on K, 0 elsewhere                       percentile 60
  ash-b  s1 / |K| on K, 0 elsewhere                65
  ash-s  x exp(s1 / s2) on K, 0 elsewhere          90
  scale  x exp(s1 / s2)                            85

Djurisic, Bozanic, Ashok, Liu: "Extremely Simple Activation Shaping for Out-of-Distribution
Detection", ICLR 2023 (percentiles: their ImageNet ones); Xu, Chen, Franchi, Yao: "Scaling for
Training Time and Post-hoc Out-of-distribution Detection Enhancement", ICLR 2024. On the pooled
features, as OpenOOD does it. Of equal values the first channels are kept.

Both papers have features that are not negative: then s1 / s2 <= c / |K|. It is held below that,
which bounds the exponential where features are negative and s2 comes near zero.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxood.detectors.contract import Transform, require
from jaxood.outputs import with_pooled


def kept_count(c: int, percentile: float) -> int:
    return max(c - round(c * percentile / 100), 1)


def kept_channels(pooled: Float[Array, "n c"], percentile: float) -> Bool[Array, "n c"]:
    """Marks the channels above the percentile of each row."""
    n, c = pooled.shape
    _, top = jax.lax.top_k(pooled, kept_count(c, percentile))
    return jnp.zeros((n, c), bool).at[jnp.arange(n)[:, None], top].set(True)


def sharpening(
    pooled: Float[Array, "n c"], percentile: float
) -> tuple[Bool[Array, "n c"], Float[Array, "n 1"]]:
    """The kept channels, and exp(s1 / s2)."""
    kept, c = kept_channels(pooled, percentile), pooled.shape[1]
    whole = pooled.sum(axis=1, keepdims=True)
    part = jnp.where(kept, pooled, 0.0).sum(axis=1, keepdims=True)
    ratio = jnp.where(part == 0, 1.0, whole / jnp.where(part == 0, 1.0, part))
    return kept, jnp.exp(jnp.minimum(ratio, c / kept_count(c, percentile)))


def require_percentile(name: str, percentile: float) -> None:
    require(0 <= percentile < 100, f"{name}.percentile", percentile, "at least 0, below 100")


@dataclass(frozen=True)
class ASHP(Transform):
    """Prunes."""

    percentile: float = 60.0

    def __post_init__(self):
        require_percentile("ash-p", self.percentile)

    def apply(self, state, outputs, head):
        kept = kept_channels(outputs.pooled, self.percentile)
        return with_pooled(outputs, jnp.where(kept, outputs.pooled, 0.0), head)


@dataclass(frozen=True)
class ASHB(Transform):
    """Binarises: what is kept shares the sum of all evenly."""

    percentile: float = 65.0

    def __post_init__(self):
        require_percentile("ash-b", self.percentile)

    def apply(self, state, outputs, head):
        kept = kept_channels(outputs.pooled, self.percentile)
        count = kept_count(outputs.pooled.shape[1], self.percentile)
        share = outputs.pooled.sum(axis=1, keepdims=True) / count
        return with_pooled(outputs, jnp.where(kept, share, 0.0), head)


@dataclass(frozen=True)
class ASHS(Transform):
    """Prunes, and sharpens what is left."""

    percentile: float = 90.0

    def __post_init__(self):
        require_percentile("ash-s", self.percentile)

    def apply(self, state, outputs, head):
        kept, factor = sharpening(outputs.pooled, self.percentile)
        return with_pooled(outputs, jnp.where(kept, outputs.pooled * factor, 0.0), head)


@dataclass(frozen=True)
class Scale(Transform):
    """Sharpens everything."""

    percentile: float = 85.0

    def __post_init__(self):
        require_percentile("scale", self.percentile)

    def apply(self, state, outputs, head):
        _, factor = sharpening(outputs.pooled, self.percentile)
        return with_pooled(outputs, outputs.pooled * factor, head)
