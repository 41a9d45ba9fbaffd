"""The last part of a classifier: pooled features -> penultimate features -> logits."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@runtime_checkable
class Head(Protocol):
    """What views, transforms and detectors ask of a head; a pytree of arrays.

    Attributes:
      kernel, bias: of the linear layer that gives the logits.
    """

    @property
    def kernel(self) -> Float[Array, "c k"]: ...

    @property
    def bias(self) -> Float[Array, " k"]: ...

    def penultimate(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """What enters the linear layer."""
        ...

    def classify(self, penultimate: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        """The logits of penultimate features."""
        ...

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        """The logits of pooled features."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearHead:
    """`logits = pooled @ kernel + bias`; penultimate features are the pooled ones."""

    kernel: Float[Array, "c k"]
    bias: Float[Array, " k"]

    def penultimate(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        return pooled

    def classify(self, penultimate: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        product = jnp.matmul(penultimate, self.kernel, precision="highest")
        return product + jnp.expand_dims(self.bias, tuple(range(product.ndim - 1)))

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        return self.classify(pooled)


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
        """The normed features."""
        lead = tuple(range(pooled.ndim - 1))
        centred = pooled - pooled.mean(axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return normed * jnp.expand_dims(self.scale, lead) + jnp.expand_dims(self.shift, lead)

    def classify(self, penultimate: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        return LinearHead(self.kernel, self.bias).classify(penultimate)

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n k"]:
        return self.classify(self.penultimate(pooled))
