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
from jaxtyping import Array, Float, PRNGKeyArray

from jaxood.attribution.pixel_gradients import (
    Images,
    PixelGradient,
    Target,
    class_scores,
    input_gradient,
)
from jaxood.attribution.rewrite import Traced, rewritten
from jaxood.context import Model
from jaxood.errors import UsageError


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


guided_relu.defvjp(
    lambda x: (guided_relu(x), x > 0),
    lambda positive, gradient: (jnp.where(positive, jnp.maximum(gradient, 0), 0),),
)


def guided_gradient(model: Model, images: Images, target: Target) -> Images:
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

    gradient = input_gradient(rewritten(class_scores(model, target), guide), images)
    if not rectifiers:
        raise UsageError(
            "method", "guided-backprop for a model without rectifiers", "one with ReLU or ReLU6"
        )
    return gradient


@dataclass(frozen=True)
class GuidedBackprop(PixelGradient):
    """The largest absolute guided gradient over the colours of each pixel."""

    name: ClassVar[str] = "guided-backprop"
    paper: ClassVar[str] = "Springenberg et al., ICLR workshop 2015"

    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        return guided_gradient(model, images, target)

    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        return jnp.abs(values).max(axis=-1)
