"""The last part of a classifier: pooled features -> penultimate features -> logits."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = jax.Array | np.ndarray  # on a device, or on the host (a memory map will do)


def normalised(rows: Float[AnyArray, "*n c"]) -> Float[Array, "*n c"]:
    """Rows of length 1; a row of zeros stays one."""
    return jnp.asarray(rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


@runtime_checkable
class Head(Protocol):
    """What views, transforms and detectors ask of a head; a pytree of arrays.

    Attributes:
      kernel, bias: of the linear layer that gives the logits.
    """

    @property
    def kernel(self) -> Float[AnyArray, "c k"]: ...

    @property
    def bias(self) -> Float[AnyArray, " k"]: ...

    def penultimate(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n c"]:
        """What enters the linear layer."""
        ...

    def classify(self, penultimate: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        """The logits of penultimate features."""
        ...

    def __call__(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        """The logits of pooled features."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearHead:
    """`logits = pooled @ kernel + bias`; penultimate features are the pooled ones."""

    kernel: Float[AnyArray, "c k"]
    bias: Float[AnyArray, " k"]

    def penultimate(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n c"]:
        return jnp.asarray(pooled)

    def classify(self, penultimate: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        product = jnp.matmul(penultimate, self.kernel, precision="highest")
        return product + jnp.expand_dims(self.bias, tuple(range(product.ndim - 1)))

    def __call__(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        return self.classify(pooled)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormLinearHead:
    """LayerNorm over channels, then a linear layer (TinyViT, ViT).

    `epsilon` is added to the biased variance, as in `torch.nn.LayerNorm`.
    """

    scale: Float[AnyArray, " c"]
    shift: Float[AnyArray, " c"]
    kernel: Float[AnyArray, "c k"]
    bias: Float[AnyArray, " k"]
    epsilon: float = field(default=1e-5, metadata={"static": True})

    def penultimate(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n c"]:
        """The normed features."""
        pooled = jnp.asarray(pooled)
        lead = tuple(range(pooled.ndim - 1))
        centred = pooled - pooled.mean(axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        scale, shift = (jnp.expand_dims(part, lead) for part in (self.scale, self.shift))
        return normed * scale + shift

    def classify(self, penultimate: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        return LinearHead(self.kernel, self.bias).classify(penultimate)

    def __call__(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        return self.classify(self.penultimate(pooled))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CosineHead:
    """`logits = scale * cos(pooled, column)`: a column a class, such as CLIP's text embeddings.

    Penultimate features are the pooled ones at length 1; what follows is linear, without a bias.
    `columns` may have any length; `scale` is CLIP's `exp(logit_scale)`, one over its temperature.
    `negatives` are columns of what the classes are not, for methods that compare with them; no
    logit is theirs.
    """

    columns: Float[AnyArray, "c k"]
    scale: float | Float[AnyArray, ""] = 100.0
    negatives: Float[AnyArray, "c m"] | None = None

    @property
    def kernel(self) -> Float[Array, "c k"]:
        """The columns at length `scale`."""
        return jnp.asarray(self.scale, jnp.float32) * normalised(self.columns.T).T

    @property
    def bias(self) -> Float[Array, " k"]:
        return jnp.zeros(self.columns.shape[1], jnp.float32)

    def penultimate(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n c"]:
        """The features at length 1."""
        return normalised(pooled)

    def classify(self, penultimate: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        return LinearHead(self.kernel, self.bias).classify(penultimate)

    def __call__(self, pooled: Float[AnyArray, "*n c"]) -> Float[Array, "*n k"]:
        return self.classify(self.penultimate(pooled))
