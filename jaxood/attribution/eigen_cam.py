"""EigenCAM: the first principal component of a layer's map (Muhammad & Yeasin, IJCNN 2020).

    X = A as [p, c], less its mean over positions;  X = U S V^T;  map = X v_1 = s_1 u_1

The mean is removed as in the package grad-cam (the paper does not). The sign of a principal
component is arbitrary there; here it is the one that goes along with the sum over channels, so
that high means active (for EigenGradCAM: in favour of the target). grad-cam clips at 0; here
negative values are kept.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.split import split


def principal_map(a: Float[Array, "n h w c"]) -> Float[Array, "n h w"]:
    """Projection of each position on the first principal direction of the image's channels."""
    n, h, w, c = a.shape
    x = a.reshape(n, h * w, c)
    x = x - x.mean(axis=1, keepdims=True)
    # An eigenvector of the smaller of the two Gram matrices: 49 x 49 where c is 1280.
    if h * w <= c:
        values, vectors = jnp.linalg.eigh(jnp.einsum("npc,nqc->npq", x, x, precision="highest"))
        component = vectors[..., -1] * jnp.sqrt(jnp.maximum(values[:, -1:], 0.0))
    else:
        _, vectors = jnp.linalg.eigh(jnp.einsum("npc,npd->ncd", x, x, precision="highest"))
        component = jnp.einsum("npc,nc->np", x, vectors[..., -1], precision="highest")
    agreement = jnp.sum(component * x.sum(axis=-1), axis=-1, keepdims=True)
    return jnp.where(agreement < 0, -component, component).reshape(n, h, w)


@dataclass(frozen=True)
class EigenCAM:
    """The layer's first principal component (layer None: the model's own choice)."""

    layer: str | None = None

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        parts = split(model, images, self.layer)
        return principal_map(parts.spatial(parts.activation).astype(jnp.float32))
