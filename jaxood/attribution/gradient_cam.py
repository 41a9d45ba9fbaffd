"""Class activation maps that weight a layer's map by the gradient of the target's logit.

With A the layer's map and G = d logit / d A, both `[n, h, w, c]`, i a position:

| name                 | map                                          | source                |
| -------------------- | -------------------------------------------- | --------------------- |
| grad-cam             | relu(sum_c A mean_i G)                       | Selvaraju et al. 2017 |
| xgrad-cam            | relu(sum_c A (sum_i G A / sum_i A))          | Fu et al. 2020        |
| layercam             | relu(sum_c A relu(G))                        | Jiang et al. 2021     |
| elementwise-grad-cam | sum_c relu(A G)                              | the package grad-cam  |
| hirescam             | sum_c A G                                    | Draelos & Carin 2020  |
| eigengradcam         | first principal component of A G (eigen_cam) | the package grad-cam  |

The packages torchcam and grad-cam agree with each other on those that both have. grad-cam clips
every map at 0; here hirescam and eigengradcam keep their negative values, as HiResCAM's paper does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.nn import relu
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.eigen_cam import principal_map
from jaxood.attribution.split import activation_and_gradient

Map = Float[Array, "n h w c"]
POSITIONS = (1, 2)


def divide(numerator: Array, denominator: Array) -> Array:
    """Their ratio, 0 where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))


def weighted_map(a: Map, weights: Map) -> Float[Array, "n h w"]:
    """`relu(sum_c A weights)`; the weights may be one a channel, `[n, 1, 1, c]`."""
    return relu(jnp.sum(a * weights, axis=-1))


def _xgrad_cam(a: Map, g: Map) -> Float[Array, "n h w"]:
    total = a.sum(axis=POSITIONS, keepdims=True)
    return weighted_map(a, divide(jnp.sum(g * a, axis=POSITIONS, keepdims=True), total))


WEIGHTINGS: dict[str, Callable[[Map, Map], Float[Array, "n h w"]]] = {
    "grad-cam": lambda a, g: weighted_map(a, g.mean(axis=POSITIONS, keepdims=True)),
    "xgrad-cam": _xgrad_cam,
    "layercam": lambda a, g: weighted_map(a, relu(g)),
    "elementwise-grad-cam": lambda a, g: relu(a * g).sum(axis=-1),
    "hirescam": lambda a, g: jnp.sum(a * g, axis=-1),
    "eigengradcam": lambda a, g: principal_map(a * g),
}


@dataclass(frozen=True)
class GradientCAM:
    """One of `WEIGHTINGS` at a layer (None: the model's own choice)."""

    weighting: str
    layer: str | None = None

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        return WEIGHTINGS[self.weighting](
            *activation_and_gradient(model, images, target, self.layer)
        )
