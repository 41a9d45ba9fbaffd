"""Pixel flipping: the class while pixels are flipped, the most relevant first.

Bach et al., "On pixel-wise explanations..." (PLoS ONE 2015), section "Evaluating heatmaps". The
curve is the probability after each flip; it begins with the first flip, not with the image, and

    value = mean of the trapezoids between the flips k = 1 ... steps

which is Quantus's area over steps - 1. A flipped pixel becomes the baseline; each step flips an
equal number of pixels. Low is good. `deletion` counts the whole image as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxood.errors import require
from jaxood.perturbation.measure import Better, Reading
from jaxood.perturbation.pictures import IMAGE
from jaxood.perturbation.rows import Rows, Scene
from jaxood.perturbation.statistics import area
from jaxood.perturbation.stepwise import Stepwise


@dataclass(frozen=True)
class PixelFlipping(Stepwise):
    """The class while the most relevant pixels are flipped: mean of the curve."""

    name: ClassVar[str] = "pixel-flipping"
    paper: ClassVar[str] = "Bach et al., PLoS ONE 2015"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    def __post_init__(self):
        super().__post_init__()
        require(self.steps > 1, f"{self.name}.steps", self.steps, "at least 2")

    @property
    def axis(self) -> Sequence[float]:
        return super().axis[1:]

    def rows(self, scene: Scene, method: str) -> Rows:
        return scene.rows(IMAGE, self.baseline, scene.ranks(method), self.counts(scene))

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        value = area(probability, self.axis) / (1 - 1 / self.steps)
        return Reading({"": float(value)}, {"": probability.tolist()})
