"""Guided back-propagation: the input gradient with rectifiers that pass back only what is positive.

    relu backwards:  R_in = R_out [x > 0] [R_out > 0]       (Springenberg et al., ICLR 2015)

Only defined for networks of rectifiers (ReLU, ReLU6). The package grad-cam guides `ReLU` and
leaves `ReLU6` alone; here the rectifying half of a ReLU6 is guided too.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Literal
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.rewrite import rewritten
from jaxood.attribution.split import target_logits
from jaxood.errors import UsageError


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


guided_relu.defvjp(
    lambda x: (guided_relu(x), x > 0),
    lambda positive, gradient: (jnp.where(positive, jnp.maximum(gradient, 0), 0),),
)


def guided_gradient(
    model: nnx.Module, images: Float[Array, "n h w 3"], target: Int[Array, " n"]
) -> Float[Array, "n h w 3"]:
    """The guided gradient of each target's logit with respect to its image.

    Raises:
      UsageError: for a model without rectifiers (GELU, SiLU...).
    """
    rectifiers = []

    def guide(equation, inputs):
        # Zero is a literal in the traces of jax.nn.relu, jax.nn.relu6 and jnp.maximum(x, 0).
        zeros = [isinstance(var, Literal) and var.val == 0 for var in equation.invars]
        if equation.primitive.name != "max" or not any(zeros):
            return None
        rectifiers.append(equation)
        return guided_relu(inputs[zeros.index(False)].value)

    score = rewritten(lambda x: target_logits(model(x).logits, target).sum(), guide)
    gradient = jax.grad(score)(images)
    if not rectifiers:
        raise UsageError(
            "methods", "guided-backprop for a model without rectifiers", "one with ReLU or ReLU6"
        )
    return gradient.astype(jnp.float32)


@dataclass(frozen=True)
class GuidedBackprop:
    """The largest absolute guided gradient over the colours of each pixel."""

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h w"]:
        return jnp.abs(guided_gradient(model, images, target)).max(axis=-1)
