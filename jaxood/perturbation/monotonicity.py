"""Monotonicity, in the two senses that the field knows by that name.

`monotonicity` (Luss et al., "Leveraging latent features for local explanations", KDD 2021; Arya et
al., AI Explainability 360, 2019): pixels of the image are added to a baseline, the *least* relevant
first; the class should become more probable with each step. The value is the share of steps at
which it does not fall, high is good. Theirs, and Quantus's, is 1 where that share is 1, else 0;
with a real network and many steps, hardly ever 1. The first step of Quantus's curve is ours after
the baseline alone.

`monotonicity-correlation` (Nguyen and Martinez, "On quantitative aspects of model
interpretability", 2020, section 4.1): groups of pixels of falling relevance are replaced, each
group alone,

    e_g = (f(x) - f(x with group g replaced))^2 / f(x)^2

and the value is Spearman's correlation of e_g with the group's sum of the map, high is good. They
take the mean of e_g over samples of the replaced pixels; here one picture replaces them, as
Quantus's with nr_samples=1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxood.perturbation.measure import Better, Reading
from jaxood.perturbation.pictures import IMAGE
from jaxood.perturbation.rows import Rows, Scene
from jaxood.perturbation.statistics import spearman
from jaxood.perturbation.stepwise import Stepwise


@dataclass(frozen=True)
class Monotonicity(Stepwise):
    """Whether the class rises with each step while pixels appear, the least relevant first."""

    name: ClassVar[str] = "monotonicity"
    paper: ClassVar[str] = "Luss et al., KDD 2021; Arya et al., 2019"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    def rows(self, scene: Scene, method: str) -> Rows:
        """From the image without the most relevant pixels: fewer of them gone at each step."""
        gone = self.counts(scene)[::-1]
        return scene.rows(IMAGE, self.baseline, scene.ranks(method), gone)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        steady = np.diff(probability[1:]) >= 0 if self.steps > 1 else np.ones(1)
        return Reading({"": float(np.mean(steady))}, {"": probability.tolist()})


@dataclass(frozen=True)
class MonotonicityCorrelation(Stepwise):
    """Whether groups of pixels matter to the class in the order of their relevance."""

    name: ClassVar[str] = "monotonicity-correlation"
    paper: ClassVar[str] = "Nguyen and Martinez, 2020"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    @property
    def axis(self) -> Sequence[float]:
        return ()

    def _limits(self, scene: Scene) -> np.ndarray:
        return np.round(np.arange(self.steps + 1) / self.steps * scene.pixels).astype(int)

    def rows(self, scene: Scene, method: str) -> Rows:
        limits, table = self._limits(scene), scene.ranks(method)
        starts, stops = np.append(0, limits[:-1]), np.append(0, limits[1:])  # the image first
        return scene.rows(IMAGE, self.baseline, table, stops, starts)

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        order = np.argsort(scene.tables[scene.ranks(method)].ravel())
        relevance = scene.subject.maps[method].ravel()[order].astype(np.float64)
        sums = np.diff(np.append(0, np.cumsum(relevance))[self._limits(scene)])
        # The division by f(x) squared changes no rank.
        return Reading({"": spearman(sums, (probability[0] - probability[1:]) ** 2)})
