"""What the transformers are made of."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.layers import add_bias


def gelu(x: Array) -> Array:
    """x * Phi(x), exact; through erf, which costs a CPU half of what `jax.nn.gelu`'s erfc does."""
    return 0.5 * x * (1 + jax.lax.erf(x * 2**-0.5))


class Dense(nnx.Module):
    """Linear layer over the last axis."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        # One product over all positions: several leading axes take XLA's slow path on a CPU.
        flat = jnp.matmul(x.reshape(-1, x.shape[-1]), self.kernel[...])
        flat = flat if self.bias is None else add_bias(flat, self.bias[...])
        return flat.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """Over the last axis, in float32."""

    def __init__(self, channels: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.shift = nnx.Param(jnp.zeros(channels))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        lead = tuple(range(x.ndim - 1))
        wide = x.astype(jnp.float32)
        mean = wide.mean(axis=-1, keepdims=True)
        centred = wide - mean
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normed = (centred * jax.lax.rsqrt(variance + self.epsilon)).astype(x.dtype)
        scale, shift = (jnp.expand_dims(p[...], lead) for p in (self.scale, self.shift))
        return normed * scale + shift


def attend(
    query: Float[Array, "n t g d"],
    key: Float[Array, "n t g d"],
    value: Float[Array, "n t g d"],
    bias: Float[Array, "*w g t t"] | None = None,
) -> Float[Array, "n t g d"]:
    """softmax(query key^T / sqrt(d) + bias) value, for each of the g heads.

    Args:
      bias: the same for all rows; with an axis w for the rows of each image, which has as many.
    """
    # Heads moved to the front by hand: XLA's CPU backend is three times slower without it.
    query, key, value = (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    scores = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
    if bias is not None:
        by_image = scores.reshape(-1, *bias.shape) + bias[None].astype(jnp.float32)
        scores = by_image.reshape(scores.shape)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.matmul(weights, value).swapaxes(1, 2)


def scaled(x: Float[Array, "*n c"], scale: Float[Array, " c"]) -> Float[Array, "*n c"]:
    """Each channel times its scale."""
    return x * jnp.expand_dims(scale, tuple(range(x.ndim - 1)))


def patches(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 d"]:
    """Squares that do not overlap: rows of each, its columns, channels flattened."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, -1)


class PatchStem(nnx.Module):
    """Linear embedding of patches of 4 x 4 pixels, LayerNorm."""

    def __init__(self, width: int, epsilon: float):
        self.projection = Dense(4 * 4 * 3, width)
        self.norm = LayerNorm(width, epsilon)

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        return self.norm(self.projection(patches(images, 4)))


def to_windows(x: Float[Array, "n h w c"], side: int) -> Float[Array, "m t c"]:
    """The positions of each square of `side`, which divides height and width, as tokens."""
    return patches(x, side).reshape(-1, side * side, x.shape[-1])


def from_windows(
    windows: Float[Array, "m t c"], side: int, height: int, width: int
) -> Float[Array, "n h w c"]:
    """What `to_windows` was given."""
    rows, columns, channels = height // side, width // side, windows.shape[-1]
    x = windows.reshape(-1, rows, columns, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height, width, channels)


def quarter_ends(depth: int) -> list[int]:
    """The last block of each quarter of a network of as many blocks: 2, 5, 8 and 11 of 12."""
    return sorted({-(-depth * quarter // 4) - 1 for quarter in range(1, 5)})
