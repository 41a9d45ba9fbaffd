"""The target's logit, and its gradient at a layer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.rewrite import with_plain_kernels
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
    context: Context,
    layer: str | None = None,
    score: Callable[[Float[Array, "n k"]], Float[Array, " n"]] | None = None,
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """The layer's map and the gradient of each image's score with respect to it, in float32.

    Args:
      score: of the logits; None: the target's.
    """
    split = context.at(layer)

    def total(activation: Array) -> Float[Array, ""]:
        logits = split.tail(activation)
        return (score(logits) if score else target_logits(logits, context.target)).sum()

    gradient = with_plain_kernels(jax.grad(total))(split.activation)
    return activation_map(split), split.spatial(gradient).astype(jnp.float32)
