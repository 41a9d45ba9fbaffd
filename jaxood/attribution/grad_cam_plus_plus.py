"""Grad-CAM++ (Chattopadhay et al., WACV 2018) and its smooth form (Omeiza et al. 2019).

    map   = relu(sum_c A w)
    w     = sum_i alpha relu(G)
    alpha = G^2 / (2 G^2 + G^3 sum_i A)         (paper, equation 19; 0 where G is 0)

with A the layer's map and G = d logit / d A. Smooth Grad-CAM++ puts the means of G, G^2 and G^3
over noisy copies of the image instead of them; A is the clean image's.

Where others differ: the packages add a constant to alpha's denominator (grad-cam 1e-6, torchcam
1e-8), which makes the map depend on the logit's scale; here there is none, and `epsilon` brings
it back. torchcam 0.5 has sum_i G^3 A for G^3 sum_i A (the same where G is the same everywhere,
as at the last layer before a mean and a linear head), leaves alpha at G^2 in Grad-CAM++, and in
the smooth form takes G outside alpha, and A, from the last noisy copy. The smooth paper has mean
G, not mean G^2, in alpha's numerator.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.nn import relu
from jaxtyping import Array, Float, PRNGKeyArray

from jaxood.attribution.gradient_cam import POSITIONS, Map, divide, weighted_map
from jaxood.attribution.gradients import activation_and_gradient, activation_map
from jaxood.context import Attribution, Context
from jaxood.errors import require

MOST_SAMPLES = 1000
Powers = tuple[Map, Map, Map]  # first, second and third, of the gradient


def plus_plus_map(a: Map, g: Map, g2: Map, g3: Map, epsilon: float) -> Float[Array, "n h w"]:
    """The map from A and the (mean) first, second and third power of the gradient."""
    alpha = divide(g2, 2 * g2 + g3 * a.sum(axis=POSITIONS, keepdims=True) + epsilon)
    return weighted_map(a, jnp.sum(alpha * relu(g), axis=POSITIONS, keepdims=True))


@dataclass(frozen=True)
class GradCAMPlusPlus(Attribution):
    """Each channel weighed by its positive gradients, the places by second and third derivatives.

    Attributes:
      layer: None for the model's choice.
      epsilon: added to alpha's denominator.
    """

    name: ClassVar[str] = "grad-cam++"
    paper: ClassVar[str] = "Chattopadhay et al., WACV 2018"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    epsilon: float = 0.0

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        a, g = activation_and_gradient(context, self.layer)
        return plus_plus_map(a, g, g**2, g**3, self.epsilon)


@dataclass(frozen=True)
class SmoothGradCAMPlusPlus(Attribution):
    """Grad-CAM++ with the mean derivatives of noisy copies of the image.

    The noise is drawn once and added to every image, so a map does not depend on its batch.

    Attributes:
      layer: None for the model's choice.
      samples: noisy copies of an image.
      noise: standard deviation, in units of normalised pixels.
      epsilon: added to alpha's denominator.
    """

    name: ClassVar[str] = "smoothgrad-cam++"
    paper: ClassVar[str] = "Omeiza et al. 2019"
    random: ClassVar[bool] = True
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    samples: int = 4
    noise: float = 0.3
    epsilon: float = 0.0

    def __post_init__(self):
        wanted = f"1 to {MOST_SAMPLES}"
        require(1 <= self.samples <= MOST_SAMPLES, f"{self.name}.samples", self.samples, wanted)
        for name in ("noise", "epsilon"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{self.name}.{name}", value, "0 or more")

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        images = context.images
        a = activation_map(context.at(self.layer))

        def add_sample(powers: Powers, key: PRNGKeyArray) -> tuple[Powers, None]:
            noise = self.noise * jax.random.normal(key, images.shape[1:], images.dtype)
            noisy = images + noise[None]
            again = replace(context, images=noisy, outputs=context.model(noisy), layers={})
            _, g = activation_and_gradient(again, self.layer)
            return jax.tree.map(jnp.add, powers, (g, g**2, g**3)), None

        zero = jnp.zeros_like(a)
        powers, _ = jax.lax.scan(
            add_sample, (zero,) * 3, jax.random.split(context.key, self.samples)
        )
        g, g2, g3 = (power / self.samples for power in powers)
        return plus_plus_map(a, g, g2, g3, self.epsilon)
