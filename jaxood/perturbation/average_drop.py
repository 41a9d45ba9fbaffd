"""Average drop, increase in confidence, drop in deletion: the image seen through its map.

With L the map scaled to [0, 1], x the image, b the baseline, f the probability of the class:

    average drop       max(0, f(x) - f(L x + (1 - L) b)) / f(x)           low is good
    increase           1 where f(L x + (1 - L) b) > f(x), else 0          high is good
    drop in deletion   max(0, f(x) - f((1 - L) x + L b)) / f(x)           high is good

Chattopadhyay et al., "Grad-CAM++" (WACV 2018), section 4.1.1, in per cent there; the drop in
deletion: Jung and Oh, "Towards better explanations of class activation mapping" (ICCV 2021). The
papers multiply the image by the map. "zero" does so with the normalised image, as torchcam's and
grad-cam's metrics do; "black" with the values of pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxood.errors import choose
from jaxood.perturbation.measure import Better, Reading, RowMeasure
from jaxood.perturbation.pictures import BASELINES, IMAGE
from jaxood.perturbation.rows import Rows, Scene


def lost(whole: float, altered: float) -> float:
    """The share of a probability that an altered image loses; 0 where there was none."""
    return float(max(0.0, whole - altered) / whole) if whole > 0 else 0.0


@dataclass(frozen=True)
class ThroughMap(RowMeasure):
    """What they share."""

    baseline: str = "zero"

    def __post_init__(self):
        choose(f"{self.name}.baseline", self.baseline, BASELINES)

    def work(self, maps: int) -> int:
        return 2 * maps

    def rows(self, scene: Scene, method: str) -> Rows:
        """The whole image; what the map shows; what it hides."""

        def blend() -> np.ndarray:
            given = scene.subject.maps[method].astype(np.float64)
            spread = np.ptp(given)
            return 1 - (given - given.min()) / (spread if spread > 0 else 1.0)

        table = scene.table(("blend", method), blend)
        pictures = (IMAGE, IMAGE), (self.baseline, IMAGE), (IMAGE, self.baseline)
        rows = [scene.rows(*pair, table, 1) for pair in pictures]
        return Rows(*map(np.concatenate, zip(*rows, strict=True)))


@dataclass(frozen=True)
class AverageDrop(ThroughMap):
    """The share of its probability that the class loses where only the map's places are seen."""

    name: ClassVar[str] = "average-drop"
    paper: ClassVar[str] = "Chattopadhyay et al., WACV 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        whole, seen, _ = probability
        return Reading({"": lost(whole, seen)})


@dataclass(frozen=True)
class Increase(ThroughMap):
    """Whether the class gains where only the map's places are seen: the share of images."""

    name: ClassVar[str] = "increase"
    paper: ClassVar[str] = "Chattopadhyay et al., WACV 2018"

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        whole, seen, _ = probability
        return Reading({"": float(seen > whole)})


@dataclass(frozen=True)
class DropInDeletion(ThroughMap):
    """The share of its probability that the class loses where the map's places are hidden."""

    name: ClassVar[str] = "drop-in-deletion"
    paper: ClassVar[str] = "Jung and Oh, ICCV 2021"

    def reading(self, scene: Scene, method: str, probability) -> Reading:
        whole, _, hidden = probability
        return Reading({"": lost(whole, hidden)})
