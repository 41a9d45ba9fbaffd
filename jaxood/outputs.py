"""What the stages of an evaluation pass on: the three depths of a model, and its head."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ModelOutputs(NamedTuple):
    """A batch at the three depths of a classifier.

    Attributes:
      feature_map: last spatial activations, or None once they have been left on the device.
      pooled: mean of the feature map over positions (or the class token), before any norm
        that belongs to the head.
      logits: `head(pooled)`.
      extras: what else an extractor kept for the methods that ask for it, by extractor name.
    """

    feature_map: Float[Array, "n h w c"] | None
    pooled: Float[Array, "n c"]
    logits: Float[Array, "n k"]
    extras: dict[str, Float[Array, "n d"]] = {}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearHead:
    """`logits = pooled @ kernel + bias`."""

    kernel: Float[Array, "c k"]
    bias: Float[Array, " k"]

    def penultimate(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """What enters the linear layer."""
        return pooled

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        product = jnp.matmul(pooled, self.kernel, precision="highest")
        return product + jnp.expand_dims(self.bias, tuple(range(product.ndim - 1)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormLinearHead:
    """LayerNorm over channels, then a linear layer (TinyViT, ViT).

    `epsilon` is added to the biased variance, as in `torch.nn.LayerNorm`.
    """

    scale: Float[Array, " c"]
    shift: Float[Array, " c"]
    kernel: Float[Array, "c k"]
    bias: Float[Array, " k"]
    epsilon: float = field(default=1e-5, metadata={"static": True})

    def penultimate(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """What enters the linear layer: the normed features."""
        lead = tuple(range(pooled.ndim - 1))
        centred = pooled - pooled.mean(axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return normed * jnp.expand_dims(self.scale, lead) + jnp.expand_dims(self.shift, lead)

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        return LinearHead(self.kernel, self.bias)(self.penultimate(pooled))


Head = LinearHead | NormLinearHead


def with_pooled(outputs: ModelOutputs, pooled: Float[Array, "n c"], head: Head) -> ModelOutputs:
    """The same images with other pooled features; the logits follow through the head."""
    return outputs._replace(feature_map=None, pooled=pooled, logits=head(pooled))
