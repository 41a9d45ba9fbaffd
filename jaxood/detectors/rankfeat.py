"""RankFeat: the feature map without its largest singular component.

  F' = F - s_1 u_1 v_1^T,   pooled = mean of F' over positions

Song, Sebe, Wang: "RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection", NeurIPS
2022. The paper averages the logits of two such models, one with the component removed from the
third block's map; here it is the last map alone (their "block 4"). The singular vector over
positions comes from the p x p Gram matrix.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.extraction import ForwardContext
from jaxood.purification import require_mean_pooling


@dataclass(frozen=True)
class RankFeat:
    """Extractor of the pooled features that remain."""

    def __call__(self, context: ForwardContext) -> Float[Array, "n c"]:
        require_mean_pooling(context.pooling)
        feature_map = context.outputs.feature_map.astype(jnp.float32)
        n, h, w, c = feature_map.shape
        values = feature_map.reshape(n, h * w, c)
        gram = jnp.einsum("npc,nqc->npq", values, values, precision="highest")
        _, vectors = jnp.linalg.eigh(gram)
        first = vectors[:, :, -1]
        along = jnp.einsum("np,npc->nc", first, values, precision="highest")
        return values.mean(axis=1) - first.mean(axis=1, keepdims=True) * along
