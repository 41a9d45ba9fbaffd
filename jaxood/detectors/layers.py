"""What methods over several layers keep of an image: its layers' values, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.context import LayerExtractor


def side_by_side(layers: Sequence[Float[Array, "n _"]]) -> Float[Array, "n l c"]:
    """A row a layer, zeros after the channels of those that have fewer than the widest."""
    widest = max(values.shape[1] for values in layers)
    padded = [jnp.pad(values, ((0, 0), (0, widest - values.shape[1]))) for values in layers]
    return jnp.stack(padded, axis=1)


@dataclass(frozen=True)
class LayerMeans(LayerExtractor):
    """The mean over positions of each layer."""

    name: ClassVar[str] = "layer-means"

    layers: str = "ends"

    def reduce(self, maps: Sequence[Float[Array, "n _ _ _"]]) -> Float[Array, "n l c"]:
        return side_by_side([values.mean(axis=(1, 2)) for values in maps])
