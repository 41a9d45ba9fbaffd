"""Sensitivity-n and faithfulness correlation: what random subsets take away, and what a map says.

A feature is a square of pixels (`patch=1`: a pixel), its relevance a_i the sum of the map over it.
With S a random subset of n features and x_S the image without them,

    r(n) = Pearson's correlation over S of   sum over i in S of a_i   and   f(x) - f(x_S)

f the probability of the class. High is good.

Sensitivity-n (Ancona et al., "Towards better understanding of gradient-based attribution methods",
ICLR 2018, section 4): r(n) for n from few features to 80 % of them; the value is its mean. Ancona
et al. use pixels and the logit. What Quantus calls sensitivity-n removes the *most relevant*
features step by step and correlates over the images of a batch: another quantity.

Faithfulness correlation (Bhatt, Weller, Moura, IJCAI 2020, eq. 5): r at one n. Quantus's with its
subsets drawn as here.

Subsets are the beginnings of random orders, drawn once an image: the same for all maps, so that
many maps cost as much as one, and the n of one order share it.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from jaxood.errors import choose, require
from jaxood.perturbation.measure import Better, Reading, RowMeasure
from jaxood.perturbation.pictures import BASELINES, IMAGE
from jaxood.perturbation.regions import Regions, regions_of
from jaxood.perturbation.rows import Rows, Scene
from jaxood.perturbation.statistics import pearson

MOST_SUBSETS = 1000  # an order takes four bytes a pixel on the device


@dataclass(frozen=True)
class SubsetCorrelation(RowMeasure):
    """What both share.

    Attributes:
      subsets: random orders of an image's features.
      patch: pixels a side of a feature; None: a fourteenth of the image's.
      draw: another number draws other orders, under the same seed.
    """

    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    baseline: str = "zero"
    subsets: int = 100
    patch: int | None = None
    draw: int = 0

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)
        wanted = f"2 to {MOST_SUBSETS}"
        require(2 <= self.subsets <= MOST_SUBSETS, f"{self.name}.subsets", self.subsets, wanted)
        require(self.draw >= 0, f"{self.name}.draw", self.draw, "at least 0")

    @property
    @abstractmethod
    def shares(self) -> Sequence[float]:
        """Of the features that subsets have."""

    def work(self, maps: int) -> int:
        return self.subsets * len(self.shares)

    def _sizes(self, regions: Regions) -> np.ndarray:
        return np.maximum(np.round(np.asarray(self.shares) * regions.count), 1).astype(int)

    def rows(self, scene: Scene, method: str) -> Rows:
        regions = regions_of(scene.subject.size, self.patch)
        sizes = self._sizes(regions)
        tables = scene.random_ranks(regions, self.draw, self.subsets)
        stop = np.concatenate([[0], np.tile(sizes, self.subsets)])  # the whole image first
        table = np.concatenate([[0], np.repeat(tables, len(sizes))])
        return scene.rows(IMAGE, self.baseline, table, stop)

    def correlations(
        self, scene: Scene, method: str, probability: Float[np.ndarray, " r"]
    ) -> list[float]:
        """r at each size of subsets."""
        regions = regions_of(scene.subject.size, self.patch)
        relevance, sizes = regions.sums(scene.subject.maps[method]), self._sizes(regions)
        falls = (probability[0] - probability[1:]).reshape(self.subsets, len(sizes))
        ends, which = np.unique(sizes, return_inverse=True)
        sums = np.empty((self.subsets, len(sizes)))
        ordered = np.empty_like(relevance)
        for i, table in enumerate(scene.random_ranks(regions, self.draw, self.subsets)):
            ordered[regions.firsts(scene.tables[table]).astype(int)] = relevance
            parts = np.add.reduceat(ordered[: ends[-1]], [0, *ends[:-1]])
            sums[i] = np.cumsum(parts)[which]
        return [pearson(*columns) for columns in zip(sums.T, falls.T, strict=True)]


@dataclass(frozen=True)
class SensitivityN(SubsetCorrelation):
    """Whether subsets that a map calls relevant are those without which the class falls.

    Attributes:
      sizes: numbers of features, evenly spaced up to 80 % of them.
    """

    name: ClassVar[str] = "sensitivity-n"
    paper: ClassVar[str] = "Ancona et al., ICLR 2018"

    sizes: int = 8

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.sizes <= 100, f"{self.name}.sizes", self.sizes, "1 to 100")

    @property
    def shares(self) -> Sequence[float]:
        return tuple(0.8 * i / self.sizes for i in range(1, self.sizes + 1))

    @property
    def axis(self) -> Sequence[float]:
        """The share of the features that subsets have."""
        return self.shares

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        found = self.correlations(scene, method, probability)
        return Reading({"": float(np.mean(found))}, {"": found})


@dataclass(frozen=True)
class FaithfulnessCorrelation(SubsetCorrelation):
    """Whether subsets of one size that a map calls relevant are those the class falls without.

    Attributes:
      share: of the features that a subset has.
    """

    name: ClassVar[str] = "faithfulness-correlation"
    paper: ClassVar[str] = "Bhatt et al., IJCAI 2020"

    share: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.share < 1, f"{self.name}.share", self.share, "above 0 and below 1")

    @property
    def shares(self) -> Sequence[float]:
        return (self.share,)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        return Reading({"": self.correlations(scene, method, probability)[0]})
