"""OptFS: every feature multiplied by what values of its size give the predicted class in training.

  z' = theta(z) z,   scored by energy
  theta = v 1000 / ||v||,   v_i = mean over images of sum_j w_tj z_j [z_j in interval i]

w_t the weights of the class t that is predicted; 100 intervals of equal width between the 0.1 % and
99.9 % quantile of all training features; theta is 0 outside of them.

Zhao, Xu, Gupta, Asthana, Zheng, Gould: "Towards Optimal Feature-Shaping Methods for
Out-of-Distribution Detection", ICLR 2024, theta in closed form, of length 1000 as in the authors'
code; the penultimate features, as there. The paper's variant with energy; its other one takes
<w_t, z'> for the class t that z predicts, to which `optfs+maxlogit` comes near.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Transform
from jaxood.detectors.statistics import BLOCK, quantiles
from jaxood.errors import require
from jaxood.outputs import with_penultimate

INTERVALS = 100
OUTSIDE = 1e-3  # share of the training features below the first interval, and above the last
LENGTH = 1000.0


class OptFSState(NamedTuple):
    low: Float[Array, ""]
    width: Float[Array, ""]
    factors: Float[Array, " m"]


@dataclass(frozen=True)
class OptFS(Transform):
    """Multiplies features by a factor of their size, fitted in closed form; needs no labels."""

    name: ClassVar[str] = "optfs"
    paper: ClassVar[str] = "Zhao, Xu, Gupta, Asthana, Zheng, Gould, ICLR 2024"
    State: ClassVar[type] = OptFSState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    def fit(self, train, labels, head):
        rows, logits = (np.asarray(part) for part in (train.penultimate, train.logits))
        low, high = quantiles(rows, [OUTSIDE, 1 - OUTSIDE]).astype(np.float32)
        width = np.float32((high - low) / INTERVALS)
        got = f"training features of which {1 - 2 * OUTSIDE:.1%} are {low:.4g}"
        require(width > 0, "method optfs", got, "features that vary")
        weights, sums = np.asarray(head.kernel, np.float64).T, np.zeros(INTERVALS)
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            index = np.floor((rows[part] - low) / width).astype(int)
            inside = (index >= 0) & (index < INTERVALS)
            given = weights[logits[part].argmax(axis=1)] * rows[part]
            sums += np.bincount(index[inside], given[inside], INTERVALS)
        length = np.linalg.norm(sums)
        got = "training features that give the predicted class nothing"
        require(length > 0, "method optfs", got, "features other than 0")
        parts = (low, width, LENGTH * sums / length)
        return OptFSState(*(jnp.asarray(part, jnp.float32) for part in parts))

    def apply(self, state, outputs, head):
        features = outputs.penultimate
        index = jnp.floor((features - state.low) / state.width)
        inside = (index >= 0) & (index < INTERVALS)
        factors = state.factors[jnp.where(inside, index, 0.0).astype(jnp.int32)]
        return with_penultimate(outputs, jnp.where(inside, features * factors, 0.0), head)
