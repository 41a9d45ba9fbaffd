"""Insertion and deletion: the class while pixels appear, or go, the most relevant first.

Petsiuk, Das, Saenko, "RISE" (BMVC 2018), section 4.1. With x_k the image of which the k most
relevant of p pixels were taken from the other picture,

    area = integral over k / p from 0 to 1 of the probability of x_k   (trapezoid rule)

deletion: from the image to the baseline, low is good; insertion: from the baseline to the image,
high is good. RISE's code takes 224 steps of 224 pixels, "zero" for deletion and for insertion an
image blurred by an 11 x 11 kernel; "blur" here is a Gaussian of 10 pixels, which leaves less.
Ties are put in order by a draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxood.perturbation.measure import Better
from jaxood.perturbation.pictures import IMAGE
from jaxood.perturbation.rows import Rows, Scene
from jaxood.perturbation.stepwise import Stepwise


@dataclass(frozen=True)
class Insertion(Stepwise):
    """The class while the most relevant pixels appear in a baseline: area under the curve."""

    name: ClassVar[str] = "insertion"
    paper: ClassVar[str] = "Petsiuk et al., BMVC 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    baseline: str = "blur"

    def rows(self, scene: Scene, method: str) -> Rows:
        return scene.rows(self.baseline, IMAGE, scene.ranks(method), self.counts(scene))


@dataclass(frozen=True)
class Deletion(Stepwise):
    """The class while the most relevant pixels go: area under the curve."""

    name: ClassVar[str] = "deletion"
    paper: ClassVar[str] = "Petsiuk et al., BMVC 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    def rows(self, scene: Scene, method: str) -> Rows:
        return scene.rows(IMAGE, self.baseline, scene.ranks(method), self.counts(scene))
