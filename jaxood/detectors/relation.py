"""Relation graph: how much the image is related to the training set, by feature and prediction.

  score = sum_i r_i^pow [r_i > 0.03],   r_i = max(<zbar, zbar_i>, 0) * <p, p_i>

zbar the L2-normalised penultimate features, as in OpenOOD, p the softmax, i over the bank.

Kim, Oh, Yun, Lee, Song, Song: "Neural Relation Graph: A Unified Framework for Identifying Label
Noise and Outlier Data", NeurIPS 2023; the cut at 0.03 and pow 1 as in the authors' code and
OpenOOD. Every training row that is given is the bank; the sum goes over it in blocks.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require
from jaxood.heads import normalised

BLOCK = 1024


class RelationState(NamedTuple):
    """Rows of zeros, which are related to nothing, fill the last block."""

    features: Float[Array, "b c"]
    probabilities: Float[Array, "b k"]


@dataclass(frozen=True)
class Relation(Detector):
    """Sum of relations above the cut."""

    name: ClassVar[str] = "relation"
    paper: ClassVar[str] = "Kim, Oh, Yun, Lee, Song, Song, NeurIPS 2023"
    State: ClassVar[type] = RelationState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")
    numbers: ClassVar[tuple[str, ...]] = ("pow", "cut")

    pow: float = 1.0
    cut: float = 0.03

    def __post_init__(self):
        require(self.pow > 0, "relation.pow", self.pow, "a positive number")
        require(0 <= self.cut < 1, "relation.cut", self.cut, "at least 0, below 1")

    def fit(self, train, labels, head):
        features = normalised(jnp.asarray(train.penultimate))
        probabilities = jax.nn.softmax(jnp.asarray(train.logits), axis=1)
        missing = -len(features) % BLOCK
        return RelationState(
            *(jnp.pad(part, ((0, missing), (0, 0))) for part in (features, probabilities))
        )

    def score(self, state, outputs, head):
        features = normalised(outputs.penultimate)
        probabilities = jax.nn.softmax(outputs.logits, axis=1)

        def add_block(total, start):
            bank, bank_p = (jax.lax.dynamic_slice_in_dim(part, start, BLOCK).T for part in state)
            likeness = jnp.maximum(jnp.matmul(features, bank, precision="highest"), 0.0)
            relation = likeness * jnp.matmul(probabilities, bank_p, precision="highest")
            edges = jnp.where(relation > self.cut, relation, 0.0) ** self.pow
            return total + edges.sum(axis=1), None

        starts = jnp.arange(0, len(state.features), BLOCK)
        return jax.lax.scan(add_block, jnp.zeros(len(features)), starts)[0]
