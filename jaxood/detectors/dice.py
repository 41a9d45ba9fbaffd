"""DICE: only the weights that contribute most to the training logits take part.

  logits = (W * M)^T z + b,   M_ij = [mu_i W_ij > the given percentile of all mu_i W_ij]

z the penultimate features, mu its mean over the training set.

Sun & Li: "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV 2022; percentile
90 as in OpenOOD. Only the logits change.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Transform
from jaxood.detectors.statistics import mean
from jaxood.errors import require
from jaxood.heads import LinearHead


class DICEState(NamedTuple):
    kernel: Float[Array, "c k"]


@dataclass(frozen=True)
class DICE(Transform):
    """Makes the last layer sparse."""

    name: ClassVar[str] = "dice"
    paper: ClassVar[str] = "Sun, Li, ECCV 2022"
    State: ClassVar[type] = DICEState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    changes_logits_only: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("percentile",)

    percentile: float = 90.0

    def __post_init__(self):
        wanted = "at least 0, below 100"
        require(0 <= self.percentile < 100, "dice.percentile", self.percentile, wanted)

    def fit(self, train, labels, head):
        kernel = np.asarray(head.kernel)
        contribution = mean(train.penultimate)[:, None] * kernel
        chosen = contribution > np.percentile(contribution, self.percentile)
        return DICEState(jnp.asarray(np.where(chosen, kernel, 0.0), jnp.float32))

    def apply(self, state, outputs, head):
        sparse = LinearHead(state.kernel, head.bias)
        return outputs._replace(logits=sparse(outputs.penultimate))
