"""Localisation: whether a map lies where the object is, by boxes or masks that somebody drew.

With R the object's pixels (see `jaxood.data.objects`), m the map:

Pointing game (Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018): a hit
where a largest value of m lies within `tolerance` pixels of R; the value is the share of hits. The
paper's tolerance is 15 pixels; Quantus has none.

Energy-based pointing game (Wang et al., "Score-CAM", CVPRW 2020, section 4.3):

    sum of m+ over R / sum of m+,   m+ = max(m, 0)

The paper's maps are not negative. Quantus's relevance mass accuracy takes m as it is.

Attribution IoU: |R and T| / |R or T|, T the pixels where the map, scaled to [0, 1], is at least
`threshold`.

All: high is good. A model may well decide by what is around the object; these tell agreement with
people, not with the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.ndimage import distance_transform_edt

from jaxood.errors import require
from jaxood.perturbation.measure import Better, MapMeasure
from jaxood.perturbation.subject import Map, Subject


@dataclass(frozen=True)
class PointingGame(MapMeasure):
    """Whether the largest value of a map lies on the object.

    Attributes:
      tolerance: pixels around the object that count as hit.
    """

    name: ClassVar[str] = "pointing-game"
    paper: ClassVar[str] = "Zhang et al., IJCV 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}
    places: ClassVar[bool] = True

    tolerance: float = 15.0

    def __post_init__(self):
        require(self.tolerance >= 0, f"{self.name}.tolerance", self.tolerance, "at least 0")

    def value(self, subject: Subject, map: Map) -> float:
        assert subject.region is not None
        away = distance_transform_edt(~subject.region)
        return float(np.min(away[map == map.max()]) <= self.tolerance)


@dataclass(frozen=True)
class EnergyPointing(MapMeasure):
    """The share of a map's positive values that lies on the object."""

    name: ClassVar[str] = "energy-pointing"
    paper: ClassVar[str] = "Wang et al., CVPRW 2020"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}
    places: ClassVar[bool] = True

    def value(self, subject: Subject, map: Map) -> float:
        positive = np.maximum(map.astype(np.float64), 0)
        total = positive.sum()
        return float(positive[subject.region].sum() / total) if total > 0 else 0.0


@dataclass(frozen=True)
class AttributionIoU(MapMeasure):
    """Overlap of the object with where a map is high: intersection over union.

    Attributes:
      threshold: of the map scaled to [0, 1].
    """

    name: ClassVar[str] = "attribution-iou"
    paper: ClassVar[str] = "as Zhou et al., CVPR 2016, localise"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}
    places: ClassVar[bool] = True

    threshold: float = 0.5

    def __post_init__(self):
        wanted = "above 0 and at most 1"
        require(0 < self.threshold <= 1, f"{self.name}.threshold", self.threshold, wanted)

    def value(self, subject: Subject, map: Map) -> float:
        spread = np.ptp(map)
        high = (map - map.min()) / (spread if spread > 0 else 1.0) >= self.threshold
        return float(np.sum(high & subject.region) / np.sum(high | subject.region))
