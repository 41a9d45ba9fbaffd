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
from jaxtyping import Array, Float

from jaxood.attribution.coalitions import position_values, require_mean_pooling
from jaxood.attribution.designs import VALUES
from jaxood.errors import UsageError, choose
from jaxood.extraction import ForwardContext
from jaxood.ranking import kept_positions


def purify(
    feature_map: Float[Array, "n h w c"], attribution: Float[Array, "n h w"], keep: int
) -> Float[Array, "n c"]:
    """Mean of the feature map over its `keep` positions of highest attribution."""
    kept = kept_positions(attribution, keep)[..., None]
    return jnp.sum(feature_map, axis=(1, 2), dtype=jnp.float32, where=kept) / keep


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
        choose("sfp.value", self.value, VALUES)
        if self.coalitions < 2:
            raise UsageError("sfp.coalitions", self.coalitions, "at least 2")
        if not 0.0 < self.keep_fraction <= 1.0:
            raise UsageError("sfp.keep_fraction", self.keep_fraction, "above 0 and at most 1")

    def __call__(self, context: ForwardContext) -> Float[Array, "n c"]:
        require_mean_pooling(context.pooling)
        feature_map, _, logits, _ = context.outputs
        positions = feature_map.shape[1] * feature_map.shape[2]
        attribution = position_values(
            feature_map,
            context.head,
            jax.random.key(self.seed),
            self.value,
            self.coalitions,
            jnp.argmax(logits, axis=-1),
            precision="bfloat16",
        )
        keep = max(1, round(self.keep_fraction * positions))
        return purify(feature_map, attribution.values, keep)
