"""One stream of masked inputs: the rows of all images and masks, in full batches.

Score-CAM, its kin, Ablation-CAM and occlusion ask what the network gives for many changed copies
of an image. Each copy is a row, made when its batch goes forward and forgotten after it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.compiling import images_a_step

WIDE = 128  # rows a batch for an accelerator


def images_a_batch(images: Float[Array, "n h w 3"]) -> int:
    """So many images go forward together: few on a CPU, for its cache."""
    on_cpu = jax.default_backend() == "cpu"
    return images_a_step(images.shape[1], images.shape[2]) if on_cpu else WIDE


def stream(
    score: Callable[[Int[Array, " b"]], Float[Array, " b"]],
    scores: Float[Array, " r"],
    chunk: int,
    order: Int[Array, " r"] | None = None,
    count: Int[Array, ""] | int | None = None,
) -> Float[Array, " r"]:
    """Scores of rows, `chunk` at a time.

    Memory: `chunk` rows and what the network makes of them.

    Args:
      score: from row numbers to their scores.
      scores: what rows have that are left out.
      chunk: rows a batch.
      order: of the rows; None: as they are numbered.
      count: how many of them are asked for, the first ones; None: all. The last batch fills up
        with rows that follow, or starts earlier where none do.
    """
    rows = scores.shape[0]
    order = jnp.arange(rows) if order is None else order
    count = rows if count is None else count
    size = min(chunk, rows)

    def step(number: Int[Array, ""], scores: Float[Array, " r"]) -> Float[Array, " r"]:
        batch = jax.lax.dynamic_slice_in_dim(order, number * size, size)
        return scores.at[batch].set(score(batch))

    return jax.lax.fori_loop(0, -(-count // size), step, scores)
