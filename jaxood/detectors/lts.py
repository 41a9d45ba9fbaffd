"""LTS: the logits scaled by how much of the features' sum lies outside the largest few.

  logits' = logits (s1 / s2)^2,   scored by energy

With z the penultimate features of the image: s1 the sum of relu(z), s2 that over its
c - round(c * percentile / 100) largest channels.

Djurisic, Liu, Nikolic: "Logit Scaling for Out-of-Distribution Detection", 2024 (arXiv 2409.01175);
percentile 95 for every architecture, as there. The relu is the authors' code's, the paper has
none. Features of which none is positive scale nothing (in the authors' code they give NaN).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.ash import kept_count
from jaxood.detectors.contract import Depth, Transform
from jaxood.errors import require


@dataclass(frozen=True)
class LTS(Transform):
    """Scales the logits, by a factor of each image."""

    name: ClassVar[str] = "lts"
    paper: ClassVar[str] = "Djurisic, Liu, Nikolic, 2024"
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")
    changes_logits_only: ClassVar[bool] = True

    percentile: float = 95.0

    def __post_init__(self):
        wanted = "at least 0, below 100"
        require(0 <= self.percentile < 100, "lts.percentile", self.percentile, wanted)

    def apply(self, state, outputs, head):
        values = jax.nn.relu(outputs.penultimate)
        largest, _ = jax.lax.top_k(values, kept_count(values.shape[1], self.percentile))
        part = largest.sum(axis=1, keepdims=True)
        whole = values.sum(axis=1, keepdims=True)
        ratio = jnp.where(part == 0, 1.0, whole / jnp.where(part == 0, 1.0, part))
        return outputs._replace(logits=outputs.logits * ratio**2)
