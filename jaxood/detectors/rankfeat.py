"""RankFeat: the feature map without its largest singular component.

  F' = F - s_1 u_1 v_1^T,   pooled = mean of F' over positions

Song, Sebe, Wang: "RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection", NeurIPS
2022. The paper averages the logits of two such models, one with the component removed from the
third block's map; here it is the last map alone (their "block 4"). The singular vector over
positions comes from the p x p Gram matrix.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.context import Context, View


@dataclass(frozen=True)
class RankFeat(View):
    """Pooled features without the largest singular component of the feature map."""

    name: ClassVar[str] = "rankfeat"
    paper: ClassVar[str] = "Song, Sebe, Wang, NeurIPS 2022"

    def __call__(self, context: Context) -> Float[Array, "n c"]:
        context.require_mean_pooling(self.name)
        feature_map = context.feature_map
        n, h, w, c = feature_map.shape
        values = feature_map.reshape(n, h * w, c)
        gram = jnp.einsum("npc,nqc->npq", values, values, precision="highest")
        _, vectors = jnp.linalg.eigh(gram)
        first = vectors[:, :, -1]
        along = jnp.einsum("np,npc->nc", first, values, precision="highest")
        return values.mean(axis=1) - first.mean(axis=1, keepdims=True) * along
