"""EigenCAM: the first principal component of a layer's map (Muhammad & Yeasin, IJCNN 2020).

    X = A as [p, c], less its mean over positions;  X = U S V^T;  map = X v_1 = s_1 u_1

The mean is removed as in the package grad-cam (the paper does not). The sign of a principal
component is arbitrary there; here it is the one that goes along with the sum over channels, so
that high means active (for EigenGradCAM: in favour of the target). grad-cam clips at 0; here
negative values are kept.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.attribution.gradients import activation_map
from jaxood.context import Attribution, Context


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
class EigenCAM(Attribution):
    """The layer's first principal component (layer None: the model's choice)."""

    name: ClassVar[str] = "eigencam"
    paper: ClassVar[str] = "Muhammad & Yeasin, IJCNN 2020"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        return principal_map(activation_map(context.at(self.layer)))
