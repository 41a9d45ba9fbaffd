"""Squares of pixels that are replaced together: the features that some measures count in."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from jaxood.errors import require
from jaxood.perturbation.subject import Map

A_SIDE = 14  # squares along the longer side, where nothing else is asked for


@dataclass(frozen=True)
class Regions:
    """The squares of `side` pixels of a grid over an image, those at its end cut off.

    Attributes:
      size: rows and columns of the image.
    """

    size: tuple[int, int]
    side: int

    @cached_property
    def labels(self) -> Int[np.ndarray, "h w"]:
        """Which square each pixel belongs to, in reading order."""
        rows, columns = (np.arange(length) // self.side for length in self.size)
        return rows[:, None] * (columns[-1] + 1) + columns

    @property
    def count(self) -> int:
        return int(self.labels[-1, -1]) + 1

    def sums(self, map: Map) -> Float[np.ndarray, " f"]:
        """The sum of a map over each square."""
        return np.bincount(self.labels.ravel(), map.ravel().astype(np.float64))

    def firsts(self, pixels: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " f"]:
        """The first pixel of each square."""
        return pixels[:: self.side, :: self.side].ravel()


def regions_of(size: tuple[int, int], patch: int | None) -> Regions:
    """A grid of squares of `patch` pixels; None: fourteen along the longer side.

    Raises:
      UsageError: for squares of which the image does not hold two.
    """
    side = math.ceil(max(size) / A_SIDE) if patch is None else patch
    wanted = f"pixels a side, 1 to {max(size) - 1}"
    require(1 <= side < max(size), "patch", patch, wanted)
    return Regions(size, side)
