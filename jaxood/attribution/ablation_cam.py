"""Ablation-CAM: a channel weighs what the logit loses without it (Desai & Ramaswamy, WACV 2020).

    map = relu(sum_c w_c A_c),  w_c = (y - y_c) / y

with y the target's logit and y_c the same with channel c of the layer's map A set to zero, as in
the paper. The package grad-cam does so where the least activation is 0; elsewhere it sets the
channel to the least activation less 1e7.

Memory: `chunk` maps of the layer at a time, and what lies after it, whatever the batch.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.gradient_cam import divide, weighted_map
from jaxood.attribution.split import split, target_logits


@dataclass(frozen=True)
class AblationCAM:
    """Attributes:
    layer: None for the model's own choice.
    chunk: maps with a channel removed that go forward together.
    """

    layer: str | None = None
    chunk: int = 128

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        parts = split(model, images, self.layer)
        activation = parts.activation
        n, c = activation.shape[0], activation.shape[-1]

        def without(index):
            image, channel = index // c, index % c
            ablated = activation[image].at[..., channel].set(0)
            return target_logits(parts.tail(ablated[None]), target[image][None])[0]

        scores = jax.lax.map(without, jnp.arange(n * c), batch_size=self.chunk).reshape(n, c)
        full = target_logits(parts.tail(activation), target)[:, None]
        a = parts.spatial(activation).astype(jnp.float32)
        return weighted_map(a, divide(full - scores, full)[:, None, None])
