"""Infidelity: how far what a map predicts of perturbations is from what they do.

Yeh et al., "On the (in)fidelity and sensitivity of explanations" (NeurIPS 2019), definition 2.1,
with the square removal of section 2 and the optimal scale of a map (appendix; captum's normalize):

    value = min over b of mean over I of  (b <I, map> - (f(x) - f(x without I)))^2

I is 1 on a square of pixels at a random place, 0 elsewhere; f the probability of the class; low is
good. Without the scale maps in other units could not be compared. Quantus multiplies the map by the
difference of the pixels' values, slides over a grid and does not scale: another quantity.

Squares are drawn once an image: the same for all maps, so that many maps cost as much as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from jaxood.errors import choose, require
from jaxood.perturbation.measure import Better, Reading, RowMeasure
from jaxood.perturbation.pictures import BASELINES, IMAGE
from jaxood.perturbation.random_subsets import MOST_SUBSETS
from jaxood.perturbation.rows import Rows, Scene

SQUARES = 3  # what the draws are for, beside those of `rows`
A_SIDE = 4  # squares would fit along the longer side, where nothing else is asked for


@dataclass(frozen=True)
class Infidelity(RowMeasure):
    """How far a map's sum over random squares is from what the class loses without them.

    Attributes:
      squares: so many an image.
      side: pixels of a square; None: a quarter of the image's.
      draw: another number draws other squares, under the same seed.
    """

    name: ClassVar[str] = "infidelity"
    paper: ClassVar[str] = "Yeh et al., NeurIPS 2019"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    baseline: str = "zero"
    squares: int = 100
    side: int | None = None
    draw: int = 0

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)
        wanted = f"1 to {MOST_SUBSETS}"
        require(1 <= self.squares <= MOST_SUBSETS, f"{self.name}.squares", self.squares, wanted)
        require(self.side is None or self.side >= 1, f"{self.name}.side", self.side, "at least 1")
        require(self.draw >= 0, f"{self.name}.draw", self.draw, "at least 0")

    def work(self, maps: int) -> int:
        return self.squares

    def boxes(self, scene: Scene) -> list[tuple[slice, slice]]:
        """The squares: wholly within the image, each place equally likely."""
        size = scene.subject.size
        side = min(self.side or -(-max(size) // A_SIDE), *size)
        rng = scene.subject.rng(scene.seed, SQUARES, self.draw, side)
        corners = rng.integers(0, [length - side + 1 for length in size], (self.squares, 2))
        return [(slice(y, y + side), slice(x, x + side)) for y, x in corners]

    def rows(self, scene: Scene, method: str) -> Rows:
        def table(box: tuple[slice, slice]) -> np.ndarray:
            outside = np.ones(scene.subject.size)
            outside[box] = 0
            return outside

        tables = [
            scene.table(("square", str(box)), partial(table, box)) for box in self.boxes(scene)
        ]
        stop = np.repeat([0, 1], [1, self.squares])  # the whole image first
        return scene.rows(IMAGE, self.baseline, np.append(0, tables), stop)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        given = scene.subject.maps[method].astype(np.float64)
        sums = np.array([given[box].sum() for box in self.boxes(scene)])
        falls = probability[0] - probability[1:]
        scale = np.mean(sums * falls) / np.mean(sums**2) if np.any(sums) else 0.0
        return Reading({"": float(np.mean((scale * sums - falls) ** 2))})
