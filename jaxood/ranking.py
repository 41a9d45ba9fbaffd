"""The positions of highest attribution, with ties decided."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxood.errors import UsageError
from jaxood.outputs import AnyArray


def kept_positions(attribution: Float[AnyArray, "n *grid"], keep: int) -> Bool[Array, "n *grid"]:
    """Marks the `keep` highest values of each map; of equals, the first in row order.

    Raises:
      UsageError: when the map has fewer positions, or `keep` is below one.
    """
    values = attribution.reshape(attribution.shape[0], -1)
    p = values.shape[1]
    if not 1 <= keep <= p:
        raise UsageError("keep", keep, f"between 1 and the {p} positions of the map")
    order = jnp.argsort(-values, axis=-1, stable=True)
    return (jnp.argsort(order, axis=-1) < keep).reshape(attribution.shape)
