"""ReAct: features are cut off at a value that few training features pass.

  z' = min(z, c),   c = the given percentile of all training features

z the penultimate features, as in OpenOOD.

Sun, Guo, Li: "ReAct: Out-of-distribution Detection With Rectified Activations", NeurIPS 2021.
OpenOOD's percentile is 90; the NNGuide code takes the 95th, over its bank
(`react[percentile=95]`), and L2-normalises after the cut, as every detector here does.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Transform
from jaxood.detectors.statistics import quantiles
from jaxood.errors import require
from jaxood.outputs import with_penultimate


class ReActState(NamedTuple):
    threshold: Float[Array, ""]


@dataclass(frozen=True)
class ReAct(Transform):
    """Cuts penultimate features off at a percentile of the training features."""

    name: ClassVar[str] = "react"
    paper: ClassVar[str] = "Sun, Guo, Li, NeurIPS 2021"
    State: ClassVar[type] = ReActState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("percentile",)

    percentile: float = 90.0

    def __post_init__(self):
        wanted = "a percentile between 0 and 100"
        require(0 < self.percentile <= 100, "react.percentile", self.percentile, wanted)

    def fit(self, train, labels, head):
        (threshold,) = quantiles(train.penultimate, [self.percentile / 100])
        return ReActState(jnp.asarray(threshold, jnp.float32))

    def apply(self, state, outputs, head):
        cut = jnp.minimum(outputs.penultimate, state.threshold)
        return with_penultimate(outputs, cut, head)
