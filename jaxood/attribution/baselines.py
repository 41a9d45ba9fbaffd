"""Maps that a faithful attribution has to beat: random weights, and edges.

RandomCAM: sum_c r_c A_c, r uniform in (-1, 1), drawn once for all images of a run. The package
grad-cam clips it at 0, which leaves nothing of the map of an image whose sums are all negative.
Sobel: (|d/dx| + |d/dy|) / 2 of the image's luma by 3x3 Sobel filters, edges mirrored; on the
normalised image, and without the saturation at 255 that the package grad-cam's has.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.attribution.gradients import activation_map
from jaxood.context import Attribution, Context

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class RandomCAM(Attribution):
    """Random channel weights at a layer (None: the model's choice)."""

    name: ClassVar[str] = "randomcam"
    random: ClassVar[bool] = True
    needs_layer: ClassVar[bool] = True

    layer: str | None = None

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        a = activation_map(context.at(self.layer))
        weights = jax.random.uniform(context.key, a.shape[-1:], minval=-1.0)
        return jnp.sum(a * weights[None, None, None], axis=-1)


@dataclass(frozen=True)
class Sobel(Attribution):
    """Edges of the image; knows nothing of the model."""

    name: ClassVar[str] = "sobel"

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        images = context.images.astype(jnp.float32)
        luma = jnp.sum(images * jnp.array(LUMA)[None, None, None], axis=-1)
        padded = jnp.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="reflect")

        def filtered(x: Array, axis: int) -> Array:
            """Difference along one axis, (1, 2, 1) along the other."""
            size, other = x.shape[axis], 3 - axis
            cut = jax.lax.slice_in_dim
            x = cut(x, 2, size, axis=axis) - cut(x, 0, size - 2, axis=axis)
            size = x.shape[other]
            first, middle, last = (cut(x, k, size - 2 + k, axis=other) for k in range(3))
            return first + 2 * middle + last

        return 0.5 * (jnp.abs(filtered(padded, 1)) + jnp.abs(filtered(padded, 2)))
