"""Which pixels go at which threshold: an order of removal, and how many of them.

Both conventions remove the first pixels of one order, most relevant first; for the curve of the
least relevant first (LeRF) the relevance is turned round.

* `exact`: round(x h w) pixels at fraction x; ties are ordered by a keyed draw. LeRF: -map.
* `notebook` (SOFA's and the package grad-cam's): a pixel is kept when map < percentile(map, q)
  strictly, q = 100 (1 - x), NumPy's linear percentile. All pixels tied at the threshold go, and
  x = 0 removes the largest one. LeRF: the same rule on 1 - map.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

CONVENTIONS = ("exact", "notebook")


def percentiles(ascending: Float[Array, "b p"], q: tuple[float, ...]) -> Float[Array, "b t"]:
    """NumPy's linear percentiles of sorted rows, in float32 and with its rounding."""
    ranks = np.asarray(q, np.float64) / 100 * (ascending.shape[1] - 1)
    below = np.floor(ranks).astype(int)
    above = np.minimum(below + 1, ascending.shape[1] - 1)
    share = jnp.asarray(ranks - below, jnp.float32)[None]
    low, high = ascending[:, below], ascending[:, above]
    step = high - low
    return jnp.where(share < 0.5, low + step * share, high - step * (1 - share))


def removal_order(
    maps: Float[Array, "b h w"],
    least_first: Bool[Array, " b"],
    fractions: tuple[float, ...],
    convention: str,
    keys: Key[Array, " b"],
) -> tuple[Int[Array, "b h w"], Int[Array, "b t"]]:
    """Each pixel's rank in the order of removal, and how many go at each fraction.

    A pixel is removed at fraction t where `rank < counts[:, t]`.
    """
    b, height, width = maps.shape
    flat = maps.reshape(b, -1)
    turned = 1 - flat if convention == "notebook" else -flat
    relevance = jnp.where(least_first[:, None], turned, flat)
    ties = jax.vmap(lambda key: jax.random.bits(key, flat.shape[1:]))(keys)
    pixels = jax.lax.broadcasted_iota(jnp.int32, flat.shape, 1)
    falling, _, order = jax.lax.sort((-relevance, ties, pixels), num_keys=2)
    ranks = jax.vmap(lambda row: jnp.zeros_like(row).at[row].set(pixels[0]))(order)
    if convention == "exact":
        exact = np.round(np.asarray(fractions) * height * width).astype(np.int32)
        counts = jnp.broadcast_to(jnp.asarray(exact)[None], (b, len(fractions)))
    else:
        rising = -falling[:, ::-1]
        q = tuple(round(100 * (1 - fraction), 9) for fraction in fractions)
        thresholds = percentiles(rising, q)
        counts = flat.shape[1] - jax.vmap(jnp.searchsorted)(rising, thresholds)
    return ranks.reshape(maps.shape), counts.astype(jnp.int32)
