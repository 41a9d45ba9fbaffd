"""Bootstrap resamples of two sets of scores: areas, and the counts that thresholds are sought in.

A resample is how often each image is drawn. That has nothing to do with scores, so it is drawn
once for all methods. Scores give the order; neighbours that nothing tells apart are counted
together.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

RESAMPLES = 1000
AT_ONCE = 100  # resamples in a block
CACHED = 100_000  # images, above which resamples are not kept, and blocks are smaller
FAR = 10  # standard deviations
TOGETHER = 64  # images in one count, at most: drawn 64 times on average, and never 256 times

Ranks = Int[np.ndarray, " n"]
Cells = Int[np.ndarray, " n"]
Counts = UInt8[np.ndarray, "r rows"]
Below = Int[np.ndarray, " t"]  # images below each score, in rising order; last all of them


class Near(NamedTuple):
    """Where the threshold is sought: near this fraction of a side's scores, from below."""

    side: int  # 0: ID, 1: OOD
    fraction: float


def resample(
    id_scores: Float[np.ndarray, " n"],
    ood_scores: Float[np.ndarray, " m"],
    seed: int,
    near: Near,
    measure: Callable[[Below, Below], float],
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """The AUROC of each resample, and `measure(id_below, ood_below)`.

    Args:
      near: `measure` is given the lowest score, those about here, and all of them.
    """
    id_ranks, ood_ranks, distinct = ranks(id_scores, ood_scores)
    sought = _sought((id_ranks, ood_ranks)[near.side], distinct, near.fraction)
    cells = _cells(id_ranks, ood_ranks, sought)
    count = int(cells[-1]) + 1
    known, foreign = (_sums(cells[ranked], count) for ranked in (id_ranks, ood_ranks))
    about = np.arange(cells[sought][0], cells[sought][-1] + 2)
    looked = np.concatenate([[0], about, [count]])
    size = max(1, AT_ONCE * CACHED // max(CACHED, known.images, foreign.images))

    def block(first: int) -> tuple[Float[np.ndarray, " r"], list[float]]:
        last = min(first + size, RESAMPLES)
        id_counts, ood_counts = (
            side.counts(_times_drawn(side.images, seed, role, first, last))
            for role, side in enumerate((known, foreign))
        )
        # Half the OOD images of the same score count, twice those below it.
        ood_below = _cumulated(ood_counts)
        upto = ood_below[:, foreign.rows_below[known.cells]]
        upto += ood_below[:, foreign.rows_below[known.cells + 1]]
        areas = np.einsum("rc,rc->r", id_counts, upto, dtype=np.float64)
        pairs = zip(known.below(id_counts, looked), foreign.below(ood_counts, looked), strict=True)
        measured = [measure(*pair) for pair in pairs]
        return areas / (2 * known.images * foreign.images), measured

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        areas, measured = zip(*pool.map(block, range(0, RESAMPLES, size)), strict=True)
    return np.concatenate(areas), np.concatenate(measured)


def ranks(
    id_scores: Float[np.ndarray, " n"], ood_scores: Float[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """The rank of each score among the distinct scores of both sets, and how many those are."""
    values, found = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
    return found[: len(id_scores)], found[len(id_scores) :], len(values)


def _sought(ranked: Ranks, distinct: int, fraction: float) -> slice:
    """The distinct scores among which a resample's quantile lies, and those on either side."""
    upto = np.cumsum(np.bincount(ranked, minlength=distinct)) / len(ranked)
    margin = FAR * np.sqrt(fraction * (1 - fraction) / len(ranked))
    first, last = np.searchsorted(upto, [fraction - margin, fraction + margin])
    return slice(max(0, first - 1), last + 2)


def _cells(
    id_ranks: Int[np.ndarray, " n"], ood_ranks: Int[np.ndarray, " m"], sought: slice
) -> Int[np.ndarray, " d"]:
    """The cell of each distinct score.

    One cell has neighbours of one set, without a score of the other between; those that are sought
    have one each.
    """
    distinct = 1 + max(id_ranks.max(), ood_ranks.max())
    only = [np.bincount(other, minlength=distinct) == 0 for other in (ood_ranks, id_ranks)]
    alone = np.zeros(distinct, bool)
    alone[sought] = True
    joined = (only[0][1:] & only[0][:-1]) | (only[1][1:] & only[1][:-1])
    return np.concatenate([[0], np.cumsum(~joined | alone[1:] | alone[:-1])])


class _Sums(NamedTuple):
    """Counts images of one set by cell, in several rows those of a large one.

    Attributes:
      matrix: sparse, [rows, images].
      cells: of each row.
      rows_below: how many rows are below each cell; last all of them.
    """

    matrix: Any
    cells: Int[np.ndarray, " rows"]
    rows_below: Below

    @property
    def images(self) -> int:
        return self.matrix.shape[1]

    def counts(self, times: UInt8[np.ndarray, "n r"]) -> Counts:
        """How many images of each row are drawn in each resample."""
        return np.ascontiguousarray((self.matrix @ times).T)

    def below(self, counts: Counts, looked: Int[np.ndarray, " l"]) -> Int[np.ndarray, "r l"]:
        """How many are drawn below each cell that is looked at: the first, some, and all."""
        first, *some, _ = self.rows_below[looked]
        lowest, highest = some[0], some[-1]
        within = _cumulated(counts[:, lowest:highest])[:, np.array(some) - lowest]
        below = np.empty((len(counts), len(looked)), np.int32)
        below[:, 0], below[:, -1] = first, self.images
        below[:, 1:-1] = within + counts[:, :lowest].sum(axis=1, dtype=np.int32)[:, None]
        return below


def _sums(cells: Cells, count: int) -> _Sums:
    from scipy.sparse import csr_array

    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    position = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    first = np.flatnonzero(position % TOGETHER == 0)
    ones = np.ones(len(cells), np.uint8)
    matrix = csr_array((ones, order, [*first, len(cells)]), (len(first), len(cells)))
    return _Sums(matrix, ordered[first], np.searchsorted(ordered[first], np.arange(count + 1)))


def _cumulated(counts: Counts) -> Int[np.ndarray, "r t"]:
    below = np.zeros((counts.shape[0], counts.shape[1] + 1), np.int32)
    np.cumsum(counts, axis=1, out=below[:, 1:])
    return below


def _times_drawn(
    count: int, seed: int, role: int, first: int, last: int
) -> UInt8[np.ndarray, "n r"]:
    """How often each of `count` images is drawn, in each of some resamples of as many."""
    draw = _kept if count <= CACHED else _kept.__wrapped__
    return draw(count, seed, role, first, last)


@lru_cache(2 * RESAMPLES // AT_ONCE)  # an ID and an OOD set
def _kept(count: int, seed: int, role: int, first: int, last: int) -> UInt8[np.ndarray, "n r"]:
    times = np.empty((last - first, count), np.uint8)
    for row, number in enumerate(range(first, last)):
        drawn = np.random.default_rng((seed, role, number)).integers(0, count, count)
        times[row] = np.bincount(drawn, minlength=count)
    return np.ascontiguousarray(times.T)


def forget() -> None:
    """Frees the resamples that are kept for the next scores of as many images."""
    _kept.cache_clear()
