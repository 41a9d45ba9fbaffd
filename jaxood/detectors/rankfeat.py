"""RankFeat: maps without their largest singular component.

  F' = F - s_1 u_1 v_1^T,   score = logsumexp of the mean logits of the models with F' in the place
  of F, for the maps F after the last block and after the one before it

Song, Sebe, Wang: "RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection", NeurIPS
2022. As a view it gives the mean of the pooled features of the two models; for a linear head the
logits that follow are the mean of theirs. `blocks=1` is the last map alone (their "block 4"), and
so is a model without named layers. The part of the network after the earlier block runs once more.
The singular vector comes from the Gram matrix of positions or channels, whichever are fewer: the
matrix is squared a few times, and a column of it multiplied by it until the eigenvector of the
largest eigenvalue is all that is left.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.context import Context, StagedModel, View
from jaxood.errors import require
from jaxood.heads import normalised

# Powers of 2^5 x 32 in all: a second eigenvalue of 0.99 of the first is left with 3e-5 of its
# share. Squaring alone takes 1.6 times as long.
SQUARINGS, PRODUCTS = 5, 31


def without_largest(maps: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Each map, as a matrix of positions by channels, less its largest singular component."""
    n, h, w, c = maps.shape
    values = maps.reshape(n, h * w, c)
    positions = h * w <= c
    rows = values if positions else values.swapaxes(1, 2)
    first = largest_eigenvector(jnp.einsum("npc,nqc->npq", rows, rows, precision="highest"))
    along = jnp.einsum("np,npc->nc", first, rows, precision="highest")
    largest = first[:, :, None] * along[:, None, :]
    return (values - (largest if positions else largest.swapaxes(1, 2))).reshape(maps.shape)


def largest_eigenvector(gram: Float[Array, "n p p"]) -> Float[Array, "n p"]:
    """Of symmetric matrices without negative eigenvalues, by high powers of them."""
    for _ in range(SQUARINGS):
        # Else powers leave float32's range.
        gram = gram / jnp.maximum(jnp.trace(gram, axis1=1, axis2=2), 1e-30)[:, None, None]
        gram = jnp.matmul(gram, gram, precision="highest")
    index = jnp.argmax(jnp.diagonal(gram, axis1=1, axis2=2), axis=1)
    column = normalised(jnp.take_along_axis(gram, index[:, None, None], axis=1)[:, 0])

    def multiplied(_, vector):
        return normalised(jnp.einsum("npq,nq->np", gram, vector, precision="highest"))

    return jax.lax.fori_loop(0, PRODUCTS, multiplied, column)


@dataclass(frozen=True)
class RankFeat(View):
    """Pooled features without the largest singular components of the last two blocks' maps."""

    name: ClassVar[str] = "rankfeat"
    paper: ClassVar[str] = "Song, Sebe, Wang, NeurIPS 2022"
    version: ClassVar[int] = 2

    blocks: int = 2

    def __post_init__(self):
        require(self.blocks in (1, 2), "rankfeat.blocks", self.blocks, "1 or 2")

    def stages(self, model: StagedModel) -> tuple[str, ...]:
        return model.block_ends[-2:-1] if self.blocks == 2 else ()

    def __call__(self, context: Context) -> Float[Array, "n c"]:
        context.require_mean_pooling(self.name)
        last = without_largest(context.feature_map).mean(axis=(1, 2))
        model = context.model
        if not isinstance(model, StagedModel) or not self.stages(model):
            return last
        (name,) = self.stages(model)
        activation = context.at(name).activation
        removed = without_largest(activation.astype(jnp.float32)).astype(activation.dtype)
        again = model.outputs(model.run(removed, start=name)).pooled
        return (last + jnp.asarray(again)) / 2
