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

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax.nn import relu
from jaxtyping import Array, Float

from jaxood.attribution.eigen_cam import principal_map
from jaxood.attribution.gradients import activation_and_gradient
from jaxood.context import Attribution, Context

Map = Float[Array, "n h w c"]
POSITIONS = (1, 2)


def divide(numerator: Array, denominator: Array) -> Array:
    """Their ratio, 0 where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))


def weighted_map(a: Map, weights: Float[Array, "n #h #w c"]) -> Float[Array, "n h w"]:
    """`relu(sum_c A weights)`; the weights may be one a channel, `[n, 1, 1, c]`."""
    return relu(jnp.sum(a * weights, axis=-1))


@dataclass(frozen=True)
class GradientCAM(Attribution):
    """A weighting at a layer (None: the model's choice)."""

    needs_layer: ClassVar[bool] = True

    layer: str | None = None

    @abstractmethod
    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        """The map from A and G."""

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        return self.weigh(*activation_and_gradient(context, self.layer))


@dataclass(frozen=True)
class GradCAM(GradientCAM):
    """Each channel weighed by the mean of its gradient."""

    name: ClassVar[str] = "grad-cam"
    paper: ClassVar[str] = "Selvaraju et al., ICCV 2017"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        return weighted_map(a, g.mean(axis=POSITIONS, keepdims=True))


@dataclass(frozen=True)
class XGradCAM(GradientCAM):
    """Each channel weighed by its gradient where it is active."""

    name: ClassVar[str] = "xgrad-cam"
    paper: ClassVar[str] = "Fu et al., BMVC 2020"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        total = a.sum(axis=POSITIONS, keepdims=True)
        return weighted_map(a, divide(jnp.sum(g * a, axis=POSITIONS, keepdims=True), total))


@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    """Each channel weighed by its gradient at every place, where that is positive."""

    name: ClassVar[str] = "layercam"
    paper: ClassVar[str] = "Jiang et al., TIP 2021"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        return weighted_map(a, relu(g))


@dataclass(frozen=True)
class ElementwiseGradCAM(GradientCAM):
    """Activation times gradient: the positive ones, summed over channels."""

    name: ClassVar[str] = "elementwise-grad-cam"
    paper: ClassVar[str] = "the package grad-cam"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        return relu(a * g).sum(axis=-1)


@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    """Activation times gradient, summed over channels."""

    name: ClassVar[str] = "hirescam"
    paper: ClassVar[str] = "Draelos & Carin 2020"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        return jnp.sum(a * g, axis=-1)


@dataclass(frozen=True)
class EigenGradCAM(GradientCAM):
    """The first principal component of activation times gradient."""

    name: ClassVar[str] = "eigengradcam"
    paper: ClassVar[str] = "the package grad-cam"

    def weigh(self, a: Map, g: Map) -> Float[Array, "n h w"]:
        return principal_map(a * g)
