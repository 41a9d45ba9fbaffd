"""Ablation-CAM: a channel weighs what the logit loses without it (Desai & Ramaswamy, WACV 2020).

    map = relu(sum_c w_c A_c),  w_c = (y - y_c) / y

with y the target's logit and y_c the same with channel c of the layer's map A set to zero, as in
the paper. The package grad-cam does so where the least activation is 0; elsewhere it sets the
channel to the least activation less 1e7.

Memory: `chunk` maps of the layer at a time, and what lies after it, whatever the batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.gradient_cam import divide, weighted_map
from jaxood.attribution.gradients import activation_map, target_logits
from jaxood.context import Attribution, Context


@dataclass(frozen=True)
class AblationCAM(Attribution):
    """Attributes:
    layer: None for the model's choice.
    chunk: maps with a channel removed that go forward together.
    """

    name: ClassVar[str] = "ablationcam"
    paper: ClassVar[str] = "Desai & Ramaswamy, WACV 2020"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    chunk: int = 128

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        split, target = context.at(self.layer), context.target
        activation = split.activation
        n, c = activation.shape[0], activation.shape[-1]

        def without(index: Int[Array, ""]) -> Float[Array, ""]:
            image, channel = index // c, index % c
            ablated = activation[image].at[..., channel].set(0)
            return target_logits(split.tail(ablated[None]), target[image][None])[0]

        scores = jax.lax.map(without, jnp.arange(n * c), batch_size=self.chunk).reshape(n, c)
        full = target_logits(split.tail(activation), target)[:, None]
        return weighted_map(activation_map(split), divide(full - scores, full)[:, None, None])
