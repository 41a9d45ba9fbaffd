"""Sparseness and complexity: on how few pixels a map rests, whatever the model says of them.

With a_i the absolute values of the map over p pixels:

Sparseness (Chalasani et al., "Concise explanations of neural networks using adversarial training",
ICML 2020, section 3; Gini's index as Hurley and Rickard, 2009, write it), 0 to 1, high is good:

    sum over i of (2 i - p - 1) a_(i) / (p sum a),   a_(1) <= ... <= a_(p)

Complexity (Bhatt, Weller, Moura, IJCAI 2020, eq. 6), the entropy of the shares, low is good:

    - sum over i of P_i ln P_i,   P_i = a_i / sum a

A map of zeros is as one of equal values: 0, and ln p. Quantus adds 1e-7 and 1e-12 to values and
shares. Both favour maps that are drawn finely: compare maps of one resolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxood.perturbation.measure import Better, MapMeasure
from jaxood.perturbation.subject import Map, Subject


@dataclass(frozen=True)
class Sparseness(MapMeasure):
    """Gini's index of a map's absolute values."""

    name: ClassVar[str] = "sparseness"
    paper: ClassVar[str] = "Chalasani et al., ICML 2020"
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}

    def value(self, subject: Subject, map: Map) -> float:
        values = np.sort(np.abs(map.ravel().astype(np.float64)))
        count, total = len(values), values.sum()
        weights = 2 * np.arange(1, count + 1) - count - 1
        return float(weights @ values / (count * total)) if total > 0 else 0.0


@dataclass(frozen=True)
class Complexity(MapMeasure):
    """Entropy of the shares that pixels have in a map's absolute values."""

    name: ClassVar[str] = "complexity"
    paper: ClassVar[str] = "Bhatt et al., IJCAI 2020"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}

    def value(self, subject: Subject, map: Map) -> float:
        values = np.abs(map.ravel().astype(np.float64))
        total = values.sum()
        if total == 0:
            return float(np.log(len(values)))
        shares = values[values > 0] / total
        return float(-(shares @ np.log(shares)))
