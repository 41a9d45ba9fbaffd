"""ViM: energy, less the length of the feature's part outside the principal subspace.

  score = logsumexp(logits) - alpha ||R^T (z - u)||
  alpha = mean max logit / mean ||R^T (z - u)||, over the training set

Wang, Li, Feng, Zhang: "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022.
R: the eigenvectors of the training features' second moment around u, from the `dim`-th on.

| name | z | u | dim |
| vim | penultimate, what enters W, b | -(W^T)^+ b | 1000 (c >= 2048), 512 (c >= 768), c / 2 |
| vim-nnguide | pooled, L2-normalised | mean of the training features | 500 |

`residual` is the distance part alone, -||R^T (z - u)||, with vim's z and u, and OpenOOD's dim of
512. Where the features have no more than `dim` channels, c / 2 is taken.

Training features that do not fill the residual space say nothing of how long a residual is: fewer
of them than channels are refused, and such as have none at all, to float32's precision.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import (
    SMALLEST,
    as_is,
    blocks,
    covariance,
    l2_normalised,
    mean,
)
from jaxood.errors import require
from jaxood.heads import normalised
from jaxood.outputs import AnyArray


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


def fit_residual(name, rows, origin, dim, logits=None, prepare=as_is) -> ViMState:
    """The residual space, and alpha where there are logits.

    Raises:
      UsageError: where the training features have no residual to speak of.
    """
    count, c = rows.shape
    got, wanted = f"{count} training images of {c} channels", f"at least {c} training images"
    require(count >= c, f"method {name}", got, wanted)
    dim = dim if dim < c else c // 2
    weight, group = np.full(1, 1 / len(rows)), np.zeros(len(rows), int)
    second_moment = covariance(rows, origin[None], group, weight, prepare)
    _, vectors = np.linalg.eigh(second_moment)
    basis = vectors[:, : c - dim]  # eigenvalues come in rising order
    lengths, wholes = np.sum(
        [
            [np.linalg.norm(part, axis=1).sum() for part in ((block - origin) @ basis, block)]
            for _, block in blocks(rows, prepare)
        ],
        axis=0,
    )
    wholes += count * np.linalg.norm(origin)
    require(
        lengths > SMALLEST * wholes,
        f"method {name}",
        f"training features with a residual of {lengths / count:.1g} beside {wholes / count:.1g}",
        f"features that vary in more than {dim} directions",
        f"A smaller {name}.dim may do",
    )
    alpha = 0.0
    if logits is not None:
        alpha = sum(block.max(axis=1).sum() for _, block in blocks(logits)) / lengths
    return ViMState(*(jnp.asarray(part, jnp.float32) for part in (origin, basis, alpha)))


def residual_length(state: ViMState, rows: Float[AnyArray, "n c"]) -> Float[Array, " n"]:
    centred = rows - state.origin[None, :]
    return jnp.linalg.norm(jnp.matmul(centred, state.residual, precision="highest"), axis=1)


@dataclass(frozen=True)
class ViM(Detector):
    """Virtual-logit matching, as published; `dim` None is the paper's choice by channels."""

    name: ClassVar[str] = "vim"
    paper: ClassVar[str] = "Wang, Li, Feng, Zhang, CVPR 2022"
    State: ClassVar[type] = ViMState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    dim: int | None = None

    def __post_init__(self):
        require(self.dim is None or self.dim > 0, "vim.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        rows = train.penultimate
        dim = published_dim(rows.shape[1]) if self.dim is None else self.dim
        return fit_residual(self.name, rows, origin_of(head), dim, train.logits)

    def score(self, state, outputs, head):
        energy = jax.nn.logsumexp(outputs.logits, axis=1)
        return energy - state.alpha * residual_length(state, outputs.penultimate)


@dataclass(frozen=True)
class ViMNNGuide(Detector):
    """The NNGuide code's: normalised pooled features around their mean; no head is needed."""

    name: ClassVar[str] = "vim-nnguide"
    paper: ClassVar[str] = "Park, Jung, Teoh, ICCV 2023"
    State: ClassVar[type] = ViMState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("pooled", "logits")

    dim: int = 500

    def __post_init__(self):
        require(self.dim > 0, "vim-nnguide.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        origin = mean(train.pooled, l2_normalised)
        return fit_residual(self.name, train.pooled, origin, self.dim, train.logits, l2_normalised)

    def score(self, state, outputs, head):
        energy = jax.nn.logsumexp(outputs.logits, axis=1)
        return energy - state.alpha * residual_length(state, normalised(outputs.pooled))


@dataclass(frozen=True)
class Residual(Detector):
    """Minus the length of the part outside the principal subspace; no logits."""

    name: ClassVar[str] = "residual"
    paper: ClassVar[str] = "Wang, Li, Feng, Zhang, CVPR 2022"
    State: ClassVar[type] = ViMState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    dim: int = 512

    def __post_init__(self):
        require(self.dim > 0, "residual.dim", self.dim, "a positive number")

    def fit(self, train, labels, head):
        return fit_residual(self.name, train.penultimate, origin_of(head), self.dim)

    def score(self, state, outputs, head):
        return -residual_length(state, outputs.penultimate)
