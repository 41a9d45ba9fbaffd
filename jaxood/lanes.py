"""A batch as two programs at once, where one CPU device computes it.

XLA shares out each operation over the cores, which then wait for the slowest of them before the
next. A second program fills these gaps. JAX runs what one thread dispatches one after the other, so
each lane has a thread.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

LANES = 2

Rows = TypeVar("Rows")
Tree = TypeVar("Tree")


def lanes(mesh: Mesh, count: int) -> int:
    """Parts that a batch of `count` rows is computed in: they are of one size."""
    one_cpu = [device.platform for device in mesh.devices.flat] == ["cpu"]
    return LANES if one_cpu and (os.cpu_count() or 1) > 1 and count % LANES == 0 else 1


@dataclass(frozen=True)
class Parts(Generic[Rows]):
    """Rows that are divided already: what is computed of them often is not copied each time."""

    rows: tuple[Rows, ...]


def divided(rows: Rows, parts: int) -> Parts[Rows]:
    """Pytree of arrays of as many rows, a multiple of `parts`, in as many parts."""
    size = len(jax.tree.leaves(rows)[0]) // parts

    def part(first: int) -> Rows:
        return jax.tree.map(lambda array: array[first : first + size], rows)

    return Parts((rows,) if parts == 1 else tuple(part(lane * size) for lane in range(parts)))


def in_lanes(call: Callable[[Rows], Tree], parts: Parts[Rows]) -> Tree:
    """`call` of each part, all at once; does not wait for the result.

    Args:
      call: dispatches a compiled function; a row of its result is of the same row of its argument.
    """
    if len(parts.rows) == 1:
        return call(parts.rows[0])
    # One dispatch after another: the first compiles for all.
    found = [_thread(lane).submit(call, part).result() for lane, part in enumerate(parts.rows)]
    return _joined(found)


@cache
def _thread(lane: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"jaxood-lane-{lane}")


@jax.jit
def _joined(parts: list[Tree]) -> Tree:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
