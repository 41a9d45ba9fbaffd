"""Integrated Gradients: the gradient along the way from a baseline to the image.

    map = sum over colours of (x - x0) * integral over a in [0, 1] of G(x0 + a (x - x0))

(Sundararajan et al., ICML 2017), G the gradient of the target's logit. The integral is a
Gauss-Legendre sum of `steps` points, as captum's default. Complete: a map's values add up to
logit(x) - logit(x0), but for the error of the sum.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxood.attribution.pixel_gradients import (
    Images,
    PixelGradient,
    Target,
    class_scores,
    input_gradient,
)
from jaxood.context import Model
from jaxood.errors import require

MOST_STEPS = 1000


@dataclass(frozen=True)
class IntegratedGradients(PixelGradient):
    """What each pixel adds to the logit on the way from a uniform image.

    Attributes:
      steps: points of the sum.
      baseline: the value of the uniform image, in normalised pixels; 0: the mean colour.
    """

    name: ClassVar[str] = "integrated-gradients"
    paper: ClassVar[str] = "Sundararajan et al., ICML 2017"

    steps: int = 50
    baseline: float = 0.0

    def __post_init__(self):
        wanted = f"1 to {MOST_STEPS}"
        require(1 <= self.steps <= MOST_STEPS, f"{self.name}.steps", self.steps, wanted)
        finite = math.isfinite(self.baseline)
        require(finite, f"{self.name}.baseline", self.baseline, "a finite number")

    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        way = images - jnp.asarray(self.baseline, images.dtype)

        def add_point(total: Array, at: Array) -> tuple[Array, None]:
            share, weight = at
            between = images - (1 - share).astype(images.dtype) * way
            gradient = input_gradient(class_scores(model, target), between)
            return total + weight * gradient, None

        wide = np.promote_types(images.dtype, np.float32)
        zero = jnp.zeros(images.shape, wide)
        on_unit = jnp.asarray(np.stack([(points + 1) / 2, weights / 2], axis=1), wide)
        integral, _ = jax.lax.scan(add_point, zero, on_unit)
        return integral * way.astype(wide)

    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        return values.sum(axis=-1)
