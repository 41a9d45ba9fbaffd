"""From one value a position to a heat map of the image's size.

Enlarging is separable: output row i of H sits at x = i (h - 1) / (H - 1) among the h rows of
the map when corners are aligned, else at x = (i + 1/2) h / H - 1/2, and is a weighted sum of
the two (bilinear) or four (bicubic: cubic convolution with a = -0.75, Keys 1981) rows nearest
to x, edge rows repeated. One small matrix an axis holds the weights. These are the conventions
of `torch.nn.functional.interpolate`; `jax.image.resize` has a = -0.5 and no aligned corners.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxood.heads import AnyArray
from jaxood.interpolation import weights_at


@functools.cache
def _weights(size_in: int, size_out: int, kernel: str, align_corners: bool) -> np.ndarray:
    """The `[size_out, size_in]` matrix that enlarges one axis."""
    steps = np.arange(size_out)
    if align_corners:
        positions = steps * ((size_in - 1) / max(size_out - 1, 1))
    else:
        positions = (steps + 0.5) * (size_in / size_out) - 0.5
    return weights_at(positions, size_in, kernel).astype(np.float32)


def upsample(
    maps: Float[Array, "*n h w"],
    size: tuple[int, int],
    kernel: Literal["bicubic", "bilinear"] = "bicubic",
    align_corners: bool = True,
) -> Float[Array, "*n H W"]:
    """Enlarges maps to `size`, (rows, columns); equal to torch's interpolation of that name."""
    rows, columns = (
        jnp.asarray(_weights(small, large, kernel, align_corners), maps.dtype)
        for small, large in zip(maps.shape[-2:], size, strict=True)
    )
    wide = jnp.einsum("...hw,Ww->...hW", maps, columns, precision="highest")
    return jnp.einsum("...hW,Hh->...HW", wide, rows, precision="highest")


def paper_scale(maps: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """SOFA's contrast: `2^(z/2)`, z standardised over the positions of a map (Zhu et al. 2025).

    The standard deviation is the unbiased one. A constant map gives ones.
    """
    centred = maps - maps.mean(axis=(1, 2), keepdims=True)
    deviation = maps.std(axis=(1, 2), keepdims=True, ddof=1)
    return jnp.exp2(0.5 * centred / jnp.where(deviation > 0, deviation, 1.0))


def unit_scale(maps: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Least value of each map to 0, largest to 1; a constant map gives zeros."""
    low = maps.min(axis=(1, 2), keepdims=True)
    spread = maps.max(axis=(1, 2), keepdims=True) - low
    return (maps - low) / jnp.where(spread > 0, spread, 1.0)


def heatmap(
    maps: Float[AnyArray, "n h w"],
    size: tuple[int, int],
    scale: Literal["paper", "unit"] = "paper",
) -> Float[Array, "n H W"]:
    """Heat maps in [0, 1] at the image's size: contrast, bicubic enlargement, then 0 to 1.

    "paper" is SOFA's contrast, "unit" the values as they are.
    """
    maps = jnp.asarray(maps)
    scaled = paper_scale(maps) if scale == "paper" else maps
    return unit_scale(upsample(scaled, size))


def pixel_heatmap(maps: Float[Array, "n H W"]) -> Float[Array, "n H W"]:
    """Heat maps of one value a pixel, 0 to 1; the outer 1 % at either end are cut off.

    They would leave all others in the dark, or in the same half-light.
    """
    low, high = jnp.quantile(maps, jnp.array([0.01, 0.99]), axis=(1, 2))
    return unit_scale(jnp.clip(maps, low[:, None, None], high[:, None, None]))


def heats(
    maps: Float[AnyArray, "n h w"],
    size: tuple[int, int],
    scale: Literal["paper", "unit"] = "paper",
) -> UInt8[np.ndarray, "n H W"]:
    """Heat maps as grey levels at the image's size, on the host: what pictures are coloured by."""
    return np.asarray(_heats(size, scale, jnp.asarray(maps)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _heats(size, scale, maps):
    found = pixel_heatmap(maps) if maps.shape[1:] == size else heatmap(maps, size, scale)
    return jnp.round(255 * found).astype(jnp.uint8)
