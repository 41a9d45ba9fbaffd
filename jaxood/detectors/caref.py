"""CARef and CADRef: how far the feature is from the mean feature of the class that is predicted.

With t = argmax logits, m_t the mean of the training features predicted as t, d = z - m_t, and
|.|_1 the sum of absolute values:

  caref   -|d|_1 / |z|_1
  cadref  -(|d+|_1 / S + |d-|_1 / mean S) / |z|_1

d+ is d on the channels where it has the sign of the weight w_t, d- on those where it has the other
one; S the energy of the image (or, by `by`, another score of its logits), mean S that over the
training images.

Ling, Chang, Zhao, Zhao, Chow, Deng: "CADRef: Robust Out-of-Distribution Detection via Class-Aware
Decoupled Relative Feature Leveraging", CVPR 2025, on the penultimate features, as in the authors'
code. A class that no training image is predicted as has the mean of all features for its own,
which is said aloud (in that code its scores are NaN).

S divides, so it has to be positive: logits for which its mean is not are refused, and below a
hundredth of the mean S is held there, where it would turn the order round.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.logit_scores import MSP, Energy, MaxLogit
from jaxood.detectors.statistics import class_means, mean
from jaxood.errors import require
from jaxood.outputs import ModelOutputs, top_classes

SCORES: dict[str, Detector] = {"energy": Energy(), "maxlogit": MaxLogit(), "msp": MSP()}
SMALLEST = 0.01  # of the mean of S


class CARefState(NamedTuple):
    means: Float[Array, "k c"]


class CADRefState(NamedTuple):
    means: Float[Array, "k c"]
    mean_score: Float[Array, ""]


def predicted_means(name: str, train: ModelOutputs) -> Float[Array, "k c"]:
    """The mean feature of the images predicted as each class."""
    predicted = top_classes(train.logits)
    k = train.logits.shape[1]
    present = np.unique(predicted)
    means = np.tile(mean(train.penultimate), (k, 1))
    means[present] = class_means(train.penultimate, predicted)[2]
    if len(present) < k:
        line = "method %s: no training image is predicted as %d of %d classes; better more images"
        logging.getLogger("jaxood").warning(line, name, k - len(present), k)
    return jnp.asarray(means, jnp.float32)


def relative_difference(means, outputs) -> Float[Array, "n c"]:
    """d, divided by |z|_1."""
    features = outputs.penultimate
    size = jnp.abs(features).sum(axis=1, keepdims=True)
    return (features - means[jnp.argmax(outputs.logits, axis=1)]) / jnp.maximum(size, 1e-12)


@dataclass(frozen=True)
class CARef(Detector):
    """Minus the relative distance to the mean of the predicted class; needs no labels."""

    name: ClassVar[str] = "caref"
    paper: ClassVar[str] = "Ling, Chang, Zhao et al., CVPR 2025"
    State: ClassVar[type] = CARefState
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    def fit(self, train, labels, head):
        return CARefState(predicted_means(self.name, train))

    def score(self, state, outputs, head):
        return -jnp.abs(relative_difference(state.means, outputs)).sum(axis=1)


@dataclass(frozen=True)
class CADRef(Detector):
    """`caref`, with what points along the predicted class's weight divided by the energy."""

    name: ClassVar[str] = "cadref"
    paper: ClassVar[str] = "Ling, Chang, Zhao et al., CVPR 2025"
    State: ClassVar[type] = CADRefState
    needs_train: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    by: Literal["energy", "maxlogit", "msp"] = "energy"

    def fit(self, train, labels, head):
        score = SCORES[self.by].score((), train, head)
        mean_score = np.asarray(score, np.float64).mean()
        got = f"training images with a mean {self.by} of {mean_score:.3g}"
        require(mean_score > 0, "method cadref", got, "a positive one", "Use cadref[by=msp]")
        means = predicted_means(self.name, train)
        return CADRefState(means, jnp.asarray(mean_score, jnp.float32))

    def score(self, state, outputs, head):
        difference = relative_difference(state.means, outputs)
        sign = jnp.sign(head.kernel.T[jnp.argmax(outputs.logits, axis=1)])
        along = jnp.maximum(difference * sign, 0.0).sum(axis=1)
        against = jnp.maximum(-difference * sign, 0.0).sum(axis=1)
        score = SCORES[self.by].score((), outputs, head)
        score = jnp.maximum(score, SMALLEST * state.mean_score)
        return -(along / score + against / state.mean_score)
