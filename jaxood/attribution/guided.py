"""Guided back-propagation: the input gradient with rectifiers that pass back only what is positive.

    relu backwards:  R_in = R_out [x > 0] [R_out > 0]       (Springenberg et al., ICLR 2015)

Only defined for networks of rectifiers (ReLU, ReLU6). The package grad-cam guides `ReLU` and
leaves `ReLU6` alone; here the rectifying half of a ReLU6 is guided too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal
from jaxtyping import Array, Float

from jaxood.attribution.gradients import target_logits
from jaxood.attribution.rewrite import Traced, rewritten
from jaxood.context import Attribution, Context
from jaxood.errors import UsageError


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


guided_relu.defvjp(
    lambda x: (guided_relu(x), x > 0),
    lambda positive, gradient: (jnp.where(positive, jnp.maximum(gradient, 0), 0),),
)


def guided_gradient(context: Context) -> Float[Array, "n h w 3"]:
    """The guided gradient of each target's logit with respect to its image.

    Raises:
      UsageError: for a model without rectifiers (GELU, SiLU...).
    """
    rectifiers = []

    def guide(equation: JaxprEqn, inputs: Sequence[Traced]) -> Array | None:
        # Zero is a literal in the traces of jax.nn.relu, jax.nn.relu6 and jnp.maximum(x, 0).
        zeros = [isinstance(var, Literal) and var.val == 0 for var in equation.invars]
        if equation.primitive.name != "max" or not any(zeros):
            return None
        rectifiers.append(equation)
        return guided_relu(inputs[zeros.index(False)].value)

    def score(images: Array) -> Float[Array, ""]:
        return target_logits(context.model(images).logits, context.target).sum()

    gradient = jax.grad(rewritten(score, guide))(context.images)
    if not rectifiers:
        raise UsageError(
            "method", "guided-backprop for a model without rectifiers", "one with ReLU or ReLU6"
        )
    return gradient.astype(jnp.float32)


@dataclass(frozen=True)
class GuidedBackprop(Attribution):
    """The largest absolute guided gradient over the colours of each pixel."""

    name: ClassVar[str] = "guided-backprop"
    paper: ClassVar[str] = "Springenberg et al., ICLR workshop 2015"

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        return jnp.abs(guided_gradient(context)).max(axis=-1)
