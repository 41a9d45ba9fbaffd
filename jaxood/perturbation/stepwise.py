"""What the measures share that change an image by the ranks of its pixels, in equal steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxood.errors import choose, require
from jaxood.perturbation.measure import Reading, RowMeasure
from jaxood.perturbation.pictures import BASELINES
from jaxood.perturbation.rows import Scene
from jaxood.perturbation.statistics import area

MOST_STEPS = 10_000


@dataclass(frozen=True)
class Stepwise(RowMeasure):
    """Attributes:
    baseline: what pixels are taken from, or what they replace.
    steps: equal numbers of pixels, so many.
    """

    baseline: str = "zero"
    steps: int = 50

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)
        wanted = f"1 to {MOST_STEPS}"
        require(1 <= self.steps <= MOST_STEPS, f"{self.name}.steps", self.steps, wanted)

    @property
    def axis(self) -> Sequence[float]:
        """The share of the pixels that has changed."""
        return tuple(k / self.steps for k in range(self.steps + 1))

    def work(self, maps: int) -> int:
        return maps * (self.steps + 1)

    def counts(self, scene: Scene) -> np.ndarray:
        """Pixels that have changed at each step."""
        return np.round(np.asarray(self.axis) * scene.pixels)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        values = {"": float(area(probability, self.axis))}
        return Reading(values, {"": probability.tolist()})
