"""CoP and CoRP: what a principal component analysis of the features' kernel leaves over.

  score = -||y - U U^T y||,   y = phi(z) - mean phi

mean phi over the training set, U the fewest principal directions that hold a share `variance` of
the training set's variance, z the penultimate features.

| name | kernel | phi(z) | variance |
| cop | cosine | z / ||z|| | 0.99 |
| corp | Gaussian of the cosine's | sqrt(2 / m) cos(W^T z / ||z|| + u) | 0.5 |

W: m columns of normal draws of variance 2 gamma, u: uniform draws from 0 to 2 pi (random Fourier
features of exp(-gamma ||x - y||^2)).

Fang, Tao, Lv, He, Huang, Yang: "Kernel PCA for Out-of-Distribution Detection", NeurIPS 2024;
`variance`, `gamma` and m as in the authors' code for a ResNet-50 on ImageNet: m is 4,096 of 2,048
channels there, 2,048 of 512 on CIFAR, which is the smaller of 4 c and 4,096. Their draws are
NumPy's, here they are JAX's, of `seed`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import (
    Prepared,
    covariance,
    l2_normalised,
    mean,
    warn_of_few_rows,
)
from jaxood.errors import require, require_seed
from jaxood.heads import normalised
from jaxood.outputs import AnyArray

SMALLEST_REST = 1e-9  # of the variance: less is rounding
MOST_FEATURES = 4096


class CoPState(NamedTuple):
    centre: Float[Array, " c"]
    basis: Float[Array, "c q"]


class CoRPState(NamedTuple):
    directions: Float[Array, "c m"]
    phases: Float[Array, " m"]
    centre: Float[Array, " m"]
    basis: Float[Array, "m q"]


def principal(
    name: str, rows: AnyArray, variance: float, prepare: Prepared
) -> tuple[Float[Array, " m"], Float[Array, "m q"]]:
    """The mean of the prepared rows, and the fewest directions that hold a share of the variance.

    Raises:
      UsageError: where nothing is left over.
    """
    centre = mean(rows, prepare)
    group, weight = np.zeros(len(rows), int), np.full(1, 1 / len(rows))
    values, vectors = np.linalg.eigh(covariance(rows, centre[None], group, weight, prepare))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    share = np.cumsum(values) / max(values.sum(), np.finfo(np.float64).tiny)
    count = min(int(np.searchsorted(share, variance)) + 1, len(share))
    require(
        values.sum() > SMALLEST_REST and 1 - share[count - 1] > SMALLEST_REST,
        f"method {name}",
        f"training features of which {count} directions hold everything",
        "features with something beside the principal directions",
        f"A smaller {name}.variance may do",
    )
    basis = vectors[:, :count]
    return jnp.asarray(centre, jnp.float32), jnp.asarray(basis, jnp.float32)


def left_over(
    rows: Float[Array, "n m"], centre: Float[Array, " m"], basis: Float[Array, "m q"]
) -> Float[Array, " n"]:
    """Length of what the principal directions do not hold."""
    centred = rows - centre[None, :]
    held = jnp.matmul(jnp.matmul(centred, basis, precision="highest"), basis.T, precision="highest")
    return jnp.linalg.norm(centred - held, axis=1)


@dataclass(frozen=True)
class CoP(Detector):
    """Minus what is left over of the features at length 1."""

    name: ClassVar[str] = "cop"
    paper: ClassVar[str] = "Fang, Tao, Lv, He, Huang, Yang, NeurIPS 2024"
    State: ClassVar[type] = CoPState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    variance: float = 0.99

    def __post_init__(self):
        wanted = "a share between 0 and 1"
        require(0 < self.variance < 1, "cop.variance", self.variance, wanted)

    def fit(self, train, labels, head):
        warn_of_few_rows(self.name, *train.penultimate.shape)
        return CoPState(*principal(self.name, train.penultimate, self.variance, l2_normalised))

    def score(self, state, outputs, head):
        return -left_over(normalised(outputs.penultimate), state.centre, state.basis)


@dataclass(frozen=True)
class CoRP(Detector):
    """`cop` in random Fourier features of the features at length 1; `features` of them."""

    name: ClassVar[str] = "corp"
    paper: ClassVar[str] = "Fang, Tao, Lv, He, Huang, Yang, NeurIPS 2024"
    State: ClassVar[type] = CoRPState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    variance: float = 0.5
    gamma: float = 3.0
    features: int | None = None
    seed: int = 0

    def __post_init__(self):
        wanted = "a share between 0 and 1"
        require(0 < self.variance < 1, "corp.variance", self.variance, wanted)
        require(0 < self.gamma < np.inf, "corp.gamma", self.gamma, "a positive number")
        wanted = "a positive number, or None"
        require(self.features is None or self.features > 0, "corp.features", self.features, wanted)
        require_seed("corp.seed", self.seed)

    def fit(self, train, labels, head):
        rows, c = train.penultimate, train.penultimate.shape[1]
        m = min(4 * c, MOST_FEATURES) if self.features is None else self.features
        normal, uniform = jax.random.split(jax.random.key(self.seed))
        directions = math.sqrt(2 * self.gamma) * jax.random.normal(normal, (c, m))
        phases = jax.random.uniform(uniform, (m,), maxval=2 * math.pi)
        weights, shift = np.asarray(directions, np.float64), np.asarray(phases, np.float64)

        def mapped(block):
            return math.sqrt(2 / m) * np.cos(l2_normalised(block) @ weights + shift)

        centre, basis = principal(self.name, rows, self.variance, mapped)
        return CoRPState(directions, phases, centre, basis)

    def score(self, state, outputs, head):
        rows = normalised(outputs.penultimate)
        angles = jnp.matmul(rows, state.directions, precision="highest") + state.phases[None, :]
        mapped = math.sqrt(2 / len(state.phases)) * jnp.cos(angles)
        return -left_over(mapped, state.centre, state.basis)
