"""ViM: energy, less the length of the feature's part outside the principal subspace.

  score = logsumexp(logits) - alpha ||R^T (z - u)||
  alpha = mean max logit / mean ||R^T (z - u)||, over the training set

Wang, Li, Feng, Zhang: "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022.
R: the eigenvectors of the training features' second moment around u, from the `dim`-th on.

| name | z | u | dim |
| vim | what enters the linear layer W, b | -(W^T)^+ b | 1000 (c >= 2048), 512 (c >= 768), c / 2 |
| vim-nnguide | pooled, L2-normalised | mean of the training features | 500 |

`residual` is the distance part alone, -||R^T (z - u)||, with vim's z and u, and OpenOOD's dim of
512. Where the features have no more than `dim` channels, c / 2 is taken.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Detector, require
from jaxood.detectors.mahalanobis import normalised
from jaxood.detectors.statistics import (
    as_is,
    blocks,
    covariance,
    l2_normalised,
    mean,
    penultimate,
)


class ViMState(NamedTuple):
    origin: Float[Array, " c"]
    residual: Float[Array, "c r"]
    alpha: Float[Array, ""]


def published_dim(c: int) -> int:
    return 1000 if c >= 2048 else 512 if c >= 768 else c // 2


def origin_of(head) -> Float[np.ndarray, " c"]:
    """The feature whose logits come nearest to zero, all of them."""
    kernel, bias = (np.asarray(part, np.float64) for part in (head.kernel, head.bias))
    return -np.linalg.pinv(kernel.T) @ bias


def fit_residual(rows, origin, dim, logits=None, prepare=as_is) -> ViMState:
    """The residual space, and alpha where there are logits."""
    c = rows.shape[1]
    dim = dim if dim < c else c // 2
    weight, group = np.full(1, 1 / len(rows)), np.zeros(len(rows), int)
    second_moment = covariance(rows, origin[None], group, weight, prepare)
    _, vectors = np.linalg.eigh(second_moment)
    basis = vectors[:, : c - dim]  # eigenvalues come in rising order
    alpha = 0.0
    if logits is not None:
        lengths = sum(
            np.linalg.norm((block - origin) @ basis, axis=1).sum()
            for _, block in blocks(rows, prepare)
        )
        largest = sum(block.max(axis=1).sum() for _, block in blocks(logits))
        alpha = largest / lengths if lengths > 0 else 0.0  # constant features have no residual
    return ViMState(*(jnp.asarray(part, jnp.float32) for part in (origin, basis, alpha)))


def residual_length(state: ViMState, rows: Float[Array, "n c"]) -> Float[Array, " n"]:
    centred = rows - state.origin[None, :]
    return jnp.linalg.norm(jnp.matmul(centred, state.residual, precision="highest"), axis=1)


@dataclass(frozen=True)
class ViM(Detector):
    """Virtual-logit matching, as published; `dim` None is the paper's choice by channels."""

    dim: int | None = None

    State: ClassVar = ViMState
    needs_train: ClassVar = True

    def __post_init__(self):
        require(self.dim is None or self.dim > 0, "vim.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        rows = penultimate(train, head)
        dim = published_dim(rows.shape[1]) if self.dim is None else self.dim
        return fit_residual(rows, origin_of(head), dim, train.logits)

    def score(self, state, outputs, head):
        rows = head.penultimate(outputs.pooled)
        energy = jax.nn.logsumexp(outputs.logits, axis=1)
        return energy - state.alpha * residual_length(state, rows)


@dataclass(frozen=True)
class ViMNNGuide(Detector):
    """The NNGuide code's: normalised features around their mean, so a head needs no bias."""

    dim: int = 500

    State: ClassVar = ViMState
    needs_train: ClassVar = True

    def __post_init__(self):
        require(self.dim > 0, "vim-nnguide.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        origin = mean(train.pooled, l2_normalised)
        return fit_residual(train.pooled, origin, self.dim, train.logits, l2_normalised)

    def score(self, state, outputs, head):
        energy = jax.nn.logsumexp(outputs.logits, axis=1)
        return energy - state.alpha * residual_length(state, normalised(outputs.pooled))


@dataclass(frozen=True)
class Residual(Detector):
    """Minus the length of the part outside the principal subspace; no logits."""

    dim: int = 512

    State: ClassVar = ViMState
    needs_train: ClassVar = True

    def __post_init__(self):
        require(self.dim > 0, "residual.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        return fit_residual(penultimate(train, head), origin_of(head), self.dim)

    def score(self, state, outputs, head):
        return -residual_length(state, head.penultimate(outputs.pooled))
