"""Spatial feature purification: pool only the positions that the decision rests on.

Zhu, Yan, Xie (IJCV 2025): the positions with the lowest attribution are left out of the mean that
the head sees, `pooled = (1/keep) * sum_{i kept} f_i`; they keep 34 of 49. Attribution divides by
all p positions and purification by the number kept: the former asks what a position adds, the
latter what the picture would be without the others.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxood.attribution.coalitions import coalition_values, draw_coalitions, require_mean_pooling
from jaxood.errors import UsageError, choose
from jaxood.extraction import ForwardContext


def kept_positions(attribution: Float[Array, "n h w"], keep: int) -> Bool[Array, "n h w"]:
    """Marks the `keep` positions of highest attribution; of equals, the first in row order."""
    n, h, w = attribution.shape
    if not 1 <= keep <= h * w:
        raise UsageError("keep", keep, f"between 1 and the {h * w} positions of the map")
    values = attribution.reshape(n, h * w)
    index = jnp.arange(h * w)
    above = values[:, None, :] > values[:, :, None]
    tied = (values[:, None, :] == values[:, :, None]) & (index[None, :] < index[:, None])[None]
    rank = jnp.sum(above | tied, axis=-1)
    return (rank < keep).reshape(n, h, w)


def purify(
    feature_map: Float[Array, "n h w c"], attribution: Float[Array, "n h w"], keep: int
) -> Float[Array, "n c"]:
    """Mean of the feature map over its `keep` positions of highest attribution."""
    kept = kept_positions(attribution, keep).astype(feature_map.dtype)
    total = jnp.einsum("nhwc,nhw->nc", feature_map, kept, precision="highest")
    return total / keep


@dataclass(frozen=True)
class SpatialPurification:
    """Extractor of purified pooled features, attributed to the model's own top class.

    Attributes:
      value: which value of the positions ranks them.
      coalitions: how many coalitions estimate it.
      keep_fraction: of the positions, rounded to a whole number of them.
      seed: of the coalitions, which all images share.
    """

    value: Literal["banzhaf", "shapley"] = "banzhaf"
    coalitions: int = 64
    keep_fraction: float = 34 / 49
    seed: int = 0

    def __post_init__(self):
        choose("sfp.value", self.value, ("banzhaf", "shapley"))
        if not 0.0 < self.keep_fraction <= 1.0:
            raise UsageError("sfp.keep_fraction", self.keep_fraction, "above 0 and at most 1")

    def __call__(self, context: ForwardContext) -> Float[Array, "n c"]:
        require_mean_pooling(context.pooling)
        feature_map, _, logits, _ = context.outputs
        positions = feature_map.shape[1] * feature_map.shape[2]
        coalitions = draw_coalitions(
            jax.random.key(self.seed), self.coalitions, positions, self.value
        )
        target = jnp.argmax(logits, axis=-1)
        attribution = coalition_values(
            feature_map, context.head, coalitions, target, precision="bfloat16"
        )
        keep = max(1, round(self.keep_fraction * positions))
        return purify(feature_map, attribution.values, keep)
