"""Runs a function over any number of rows in blocks of one size, so that it compiles once."""

from collections.abc import Callable

import jax
import numpy as np

BLOCK_ROWS = 1024


def map_blocks(function: Callable, rows, block: int = BLOCK_ROWS):
    """Applies `function` to blocks of `rows`, and joins what it gives on the host.

    Args:
      function: compiled, and per row: pytree of arrays in, pytree of arrays out.
      rows: pytree of arrays (memory maps too) that share their first axis.
      block: rows at a time; the last block is padded with zeros, which are cut off again.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    parts = []
    for start in range(0, max(count, 1), block):
        valid = min(block, count - start)

        def take(array, start=start, valid=valid):
            part = np.asarray(array[start : start + valid])
            return np.pad(part, [(0, block - valid)] + [(0, 0)] * (part.ndim - 1))

        result = function(jax.tree.map(take, rows))
        parts.append(jax.tree.map(lambda array, valid=valid: np.asarray(array)[:valid], result))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
