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
from jaxood.attribution.masked import WIDE, stream
from jaxood.context import Attribution, Context

ON_CPU = 32  # maps of the last layers that its cache takes


@dataclass(frozen=True)
class AblationCAM(Attribution):
    """Each channel weighed by what the logit loses without it.

    Attributes:
      layer: None for the model's choice.
      chunk: maps with a channel removed that go forward together; None: 32 on a CPU, else 128.
    """

    name: ClassVar[str] = "ablationcam"
    paper: ClassVar[str] = "Desai & Ramaswamy, WACV 2020"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    chunk: int | None = None

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        split, target = context.at(self.layer), context.target
        activation = split.activation
        n, c = activation.shape[0], activation.shape[-1]

        def without(pairs: Int[Array, " b"]) -> Float[Array, " b"]:
            image, channel = pairs // c, pairs % c
            kept = channel[:, None] != jnp.arange(c)[None]
            kept = jnp.expand_dims(kept, tuple(range(1, activation.ndim - 1)))
            ablated = jnp.where(kept, activation[image], 0)
            return target_logits(split.tail(ablated), target[image])

        chunk = self.chunk or (ON_CPU if jax.default_backend() == "cpu" else WIDE)
        scores = stream(without, jnp.zeros(n * c, jnp.float32), chunk).reshape(n, c)
        full = target_logits(split.tail(activation), target)[:, None]
        return weighted_map(activation_map(split), divide(full - scores, full)[:, None, None])
