"""The target's logit, and its gradient at a layer."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.context import Context, Split
from jaxood.outputs import AnyArray


def target_logits(logits: Float[AnyArray, "n k"], target: Int[Array, " n"]) -> Float[Array, " n"]:
    """Each image's logit of its target."""
    return jnp.take_along_axis(jnp.asarray(logits), target[:, None], axis=1)[:, 0].astype(
        jnp.float32
    )


def activation_map(split: Split) -> Float[Array, "n h w c"]:
    """The layer's map, in float32."""
    return split.spatial(split.activation).astype(jnp.float32)


def activation_and_gradient(
    context: Context, layer: str | None = None
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """The layer's map and the gradient of the target's logit with respect to it, in float32."""
    split = context.at(layer)

    def score(activation: Array) -> Float[Array, ""]:
        return target_logits(split.tail(activation), context.target).sum()

    gradient = jax.grad(score)(split.activation)
    return activation_map(split), split.spatial(gradient).astype(jnp.float32)
