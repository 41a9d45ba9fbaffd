"""VRA: features are rectified from both sides.

  z' = clip(z, low, high): percentiles of all training features

z the penultimate features, as in OpenOOD.

Xu, Lin, Zhang et al.: "VRA: Variational Rectified Activation for Out-of-distribution Detection",
NeurIPS 2023. Percentiles 10 and 90 and values below `low` raised to it, as in OpenOOD; the paper
sets them to zero (`vra[below=zero]`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Transform
from jaxood.detectors.statistics import quantiles
from jaxood.errors import require
from jaxood.outputs import with_penultimate


class VRAState(NamedTuple):
    low: Float[Array, ""]
    high: Float[Array, ""]


@dataclass(frozen=True)
class VRA(Transform):
    """Rectifies penultimate features outside two percentiles of the training features."""

    name: ClassVar[str] = "vra"
    paper: ClassVar[str] = "Xu, Lin, Zhang et al., NeurIPS 2023"
    State: ClassVar[type] = VRAState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("low", "high")

    low: float = 10.0
    high: float = 90.0
    below: Literal["clip", "zero"] = "clip"

    def __post_init__(self):
        wanted = "percentiles, 0 <= low < high <= 100"
        got = f"{self.low} and {self.high}"
        require(0 <= self.low < self.high <= 100, "vra.low and vra.high", got, wanted)

    def fit(self, train, labels, head):
        thresholds = quantiles(train.penultimate, [self.low / 100, self.high / 100])
        return VRAState(*jnp.asarray(thresholds, jnp.float32))

    def apply(self, state, outputs, head):
        floor = state.low if self.below == "clip" else jnp.zeros_like(state.low)
        features = outputs.penultimate
        raised = jnp.where(features < state.low, floor, features)
        return with_penultimate(outputs, jnp.minimum(raised, state.high), head)
