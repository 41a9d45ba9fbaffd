"""Region perturbation and selectivity: the class while square regions go, the most relevant first.

The relevance of a region is the sum of the map over it. With x_k the image without the k most
relevant of its L regions, f the probability of the class:

Region perturbation (Samek et al., "Evaluating the visualization of what a deep neural network has
learned", TNNLS 2017, eq. 12), high is good:

    AOPC = 1 / (K + 1) sum over k = 0 ... K of f(x_0) - f(x_k)

Samek et al. take K = 100 of regions of 9 x 9 pixels and uniform noise, a new one for each of ten
repetitions; here one picture of noise, by the run's seed. Quantus gives the single differences.

Selectivity (Montavon, Samek, Mueller, Digital Signal Processing 2018, section 7.2), low is good:

    area under f(x_k) over k / L, k = 0 ... L   (trapezoid rule)

Quantus's area begins with k = 1, and its x counts regions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxood.errors import choose, require
from jaxood.perturbation.measure import Better, Reading, RowMeasure
from jaxood.perturbation.pictures import BASELINES, IMAGE
from jaxood.perturbation.regions import A_SIDE, regions_of
from jaxood.perturbation.rows import Rows, Scene
from jaxood.perturbation.statistics import area


@dataclass(frozen=True)
class RegionPerturbation(RowMeasure):
    """How far the class falls, on average, while the most relevant regions go.

    Attributes:
      regions: that go one after another, at most those of the image.
      patch: pixels a side of a region; None: a fourteenth of the image's.
    """

    name: ClassVar[str] = "region-perturbation"
    paper: ClassVar[str] = "Samek et al., TNNLS 2017"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    baseline: str = "uniform"
    regions: int = 100
    patch: int | None = None

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)
        require(self.regions >= 1, f"{self.name}.regions", self.regions, "at least 1")

    def work(self, maps: int) -> int:
        return maps * (min(self.regions, A_SIDE**2) + 1)

    def rows(self, scene: Scene, method: str) -> Rows:
        grid = regions_of(scene.subject.size, self.patch)
        gone = np.arange(min(self.regions, grid.count) + 1)
        return scene.rows(IMAGE, self.baseline, scene.region_ranks(method, grid), gone)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        return Reading({"": float(np.mean(probability[0] - probability))})


@dataclass(frozen=True)
class Selectivity(RowMeasure):
    """The class while regions go, the most relevant first, until none is left: area.

    Attributes:
      patch: pixels a side of a region; None: a fourteenth of the image's.
      steps: points of the curve beside the first: 1/steps of the regions go at each.
    """

    name: ClassVar[str] = "selectivity"
    paper: ClassVar[str] = "Montavon et al., DSP 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    baseline: str = "zero"
    steps: int = 49
    patch: int | None = None

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)
        require(self.steps >= 1, f"{self.name}.steps", self.steps, "at least 1")

    @property
    def axis(self) -> Sequence[float]:
        """The share of the regions that have gone."""
        return tuple(k / self.steps for k in range(self.steps + 1))

    def work(self, maps: int) -> int:
        return maps * (self.steps + 1)

    def rows(self, scene: Scene, method: str) -> Rows:
        grid = regions_of(scene.subject.size, self.patch)
        gone = np.round(np.asarray(self.axis) * grid.count)
        return scene.rows(IMAGE, self.baseline, scene.region_ranks(method, grid), gone)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        values = {"": float(area(probability, self.axis))}
        return Reading(values, {"": probability.tolist()})
