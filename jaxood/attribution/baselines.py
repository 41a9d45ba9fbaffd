"""Maps that a faithful attribution has to beat: random weights, and edges.

RandomCAM: sum_c r_c A_c, r uniform in (-1, 1), drawn once for all images of a run. The package
grad-cam clips it at 0, which leaves nothing of the map of an image whose sums are all negative.
Sobel: (|d/dx| + |d/dy|) / 2 of the image's luma by 3x3 Sobel filters, edges mirrored; on the
normalised image, and without the saturation at 255 that the package grad-cam's has.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.split import split

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class RandomCAM:
    """Random channel weights at a layer (None: the model's own choice)."""

    layer: str | None = None

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        parts = split(model, images, self.layer)
        a = parts.spatial(parts.activation).astype(jnp.float32)
        weights = jax.random.uniform(key, a.shape[-1:], minval=-1.0)
        return jnp.sum(a * weights[None, None, None], axis=-1)


@dataclass(frozen=True)
class Sobel:
    """Edges of the image; knows nothing of the model."""

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h w"]:
        luma = jnp.sum(images.astype(jnp.float32) * jnp.array(LUMA)[None, None, None], axis=-1)
        padded = jnp.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="reflect")

        def filtered(x, axis):
            """Difference along one axis, (1, 2, 1) along the other."""
            size, other = x.shape[axis], 3 - axis
            cut = jax.lax.slice_in_dim
            x = cut(x, 2, size, axis=axis) - cut(x, 0, size - 2, axis=axis)
            size = x.shape[other]
            parts = (cut(x, k, size - 2 + k, axis=other) for k in range(3))
            return sum(weight * part for weight, part in zip((1, 2, 1), parts, strict=True))

        return 0.5 * (jnp.abs(filtered(padded, 1)) + jnp.abs(filtered(padded, 2)))
