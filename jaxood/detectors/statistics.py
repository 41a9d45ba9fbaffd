"""Means and covariances of training features: float64 on the host, a block of rows at a time.

float64, because the inverse of a covariance magnifies its rounding; blocks, because the rows may
be a memory map of millions. The memory beside the rows is a few arrays of c x c.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt32

from jaxood.errors import require
from jaxood.outputs import AnyArray

BLOCK = 4096
LOWEST, HIGHEST = 0x007F, 0xFF80  # upper 16 of the ordered bits of -inf and inf; NaN is beyond
SMALLEST = 1e-5  # of the size of features: float32 rounds at a hundredth of it

Rows = AnyArray  # [n, c]; on the host, a memory map will do
Prepared = Callable[[Rows], Rows]


def as_is(rows: Rows) -> Rows:
    return rows


def l2_normalised(rows: Rows) -> Rows:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(np.asarray(rows), axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)


def blocks(rows: Rows, prepare: Prepared = as_is) -> Iterator[tuple[slice, Rows]]:
    """The rows in float64, block by block, each with the slice it is."""
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, prepare(np.asarray(rows[part], np.float64))


def mean(rows: Rows, prepare: Prepared = as_is) -> Float[np.ndarray, " c"]:
    total = sum(block.sum(axis=0) for _, block in blocks(rows, prepare))
    return np.asarray(total) / len(rows)


def quantiles(rows: Rows, fractions: Sequence[float]) -> Float[np.ndarray, " q"]:
    """Of all values, as float32, interpolated linearly; without a copy. NaN where one is NaN.

    Floats compare as their bits do, once signs are seen to: values are counted by their upper 16
    bits, and where a quantile lies by the lower 16.
    """
    places = np.asarray(fractions) * (rows.shape[0] * rows.shape[1] - 1)
    ranks = np.unique(np.concatenate([np.floor(places), np.ceil(places)])).astype(int)
    upper = _counted(bits >> 16 for bits in _ordered_bits(rows))
    if upper[:LOWEST].any() or upper[HIGHEST + 1 :].any():
        return np.full(len(places), np.nan)
    ends = np.cumsum(upper)
    bins = np.searchsorted(ends, ranks, side="right")
    lower = {
        chosen: _counted(bits[bits >> 16 == chosen] & 0xFFFF for bits in _ordered_bits(rows))
        for chosen in set(bins)
    }
    values = []
    for rank, chosen in zip(ranks, bins, strict=True):
        within = rank - (ends[chosen] - upper[chosen])
        low = np.searchsorted(np.cumsum(lower[chosen]), within, side="right")
        values.append(_float_of(int(chosen) << 16 | int(low)))
    return np.interp(places, ranks, values)


def _counted(parts: Iterable[UInt32[np.ndarray, " _"]]) -> Int[np.ndarray, " v"]:
    """How often each number of 16 bits is there."""
    counts = np.zeros(1 << 16, int)
    for part in parts:
        counts += np.bincount(part, minlength=len(counts))
    return counts


def _ordered_bits(rows: Rows) -> Iterator[UInt32[np.ndarray, " n"]]:
    """The bits of float32 values as whole numbers of the same order, block by block."""
    for start in range(0, len(rows), BLOCK):
        bits = np.asarray(rows[start : start + BLOCK], np.float32).ravel().view(np.uint32)
        yield bits ^ np.where(bits >> 31, 0xFFFFFFFF, 0x80000000).astype(np.uint32)


def _float_of(ordered: int) -> np.float32:
    return np.uint32(ordered ^ (0x80000000 if ordered >> 31 else 0xFFFFFFFF)).view(np.float32)


def class_means(
    rows: Rows, labels: Int[np.ndarray, " n"], prepare: Prepared = as_is
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " k"], Float[np.ndarray, "k c"]]:
    """Which class of those present a row is in, how many are in each, and their means."""
    _, group, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rows.shape[1]))
    for part, block in blocks(rows, prepare):
        np.add.at(sums, group[part], block)
    return group, counts, sums / counts[:, None]


def covariance(
    rows: Rows,
    centres: Float[np.ndarray, "k c"],
    group: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " k"],
    prepare: Prepared = as_is,
) -> Float[np.ndarray, "c c"]:
    """Sum over rows of `weights[g] (row - centres[g]) (row - centres[g])^T`, g = `group[row]`."""
    total = np.zeros((centres.shape[1],) * 2)
    for part, block in blocks(rows, prepare):
        index = group[part]
        block = (block - centres[index]) * np.sqrt(weights[index])[:, None]
        total += block.T @ block
    return total


def pseudo_whitener(
    matrix: Float[np.ndarray, "c c"], rcond: float
) -> tuple[Float[np.ndarray, "c c"], Float[np.ndarray, " c"]]:
    """W with `W W^T` the pseudo-inverse of a covariance, and its eigenvalues, largest last.

    Directions with less than `rcond` of the largest variance (dead channels, copies) get no say:
    their columns are zero.
    """
    values, vectors = np.linalg.eigh(matrix)
    alive = values > rcond * max(values[-1], np.finfo(np.float64).tiny)
    scale = np.where(alive, 1 / np.sqrt(np.where(alive, values, 1.0)), 0.0)
    return vectors * scale, values


def differ(rows: Rows) -> bool:
    """Whether any row differs from the first, by more than rounding."""
    first = np.asarray(rows[0], np.float64)
    least = SMALLEST * np.abs(first)
    # Not ">": what is not finite differs, and is told of by whoever reads it.
    return not all((np.abs(block - first) <= least).all() for _, block in blocks(rows))


def require_spread(name: str, within: float, size: float) -> None:
    """Raises UsageError for a variance within the classes that is nothing beside `size`."""
    told = f"{within**0.5:.1g} within a class, beside {size**0.5:.1g}"
    got, wanted = f"training features that differ by {told}", "ones that differ by more"
    require(within > SMALLEST**2 * size, f"method {name}", got, wanted)


def warn_of_few_rows(name: str, count: int, c: int) -> None:
    """Says aloud when a covariance has fewer rows than it has channels.

    Directions that the training rows do not span have no variance in it: what an image differs by
    there is not seen, or, with a ridge, is nearly all that is seen.
    """
    if count <= c:
        line = "method %s: a covariance of %d channels from %d training images; better more"
        logging.getLogger("jaxood").warning(line, name, c, count)
