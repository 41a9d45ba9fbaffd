"""SHE: inner product of the feature with the stored pattern of the predicted class.

  score = <z, S_t>,   t = argmax logits,   S_t = mean of z over training images of class t that
                                                 are classified rightly

Zhang, Fu, Chen et al.: "Out-of-Distribution Detection Based on In-Distribution Data Patterns
Memorization with Modern Hopfield Energy", ICLR 2023. Inner product, as OpenOOD's default, on the
penultimate features. A class whose training images are all misclassified takes
all of them; each class of the model needs at least one image.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import class_means
from jaxood.errors import require


class SHEState(NamedTuple):
    patterns: Float[Array, "k c"]


@dataclass(frozen=True)
class SHE(Detector):
    """Inner product with the predicted class's mean feature."""

    name: ClassVar[str] = "she"
    paper: ClassVar[str] = "Zhang, Fu, Chen et al., ICLR 2023"
    State: ClassVar[type] = SHEState
    needs_train: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    def check(self, labels, classes):
        missing = np.setdiff1d(np.arange(classes or 0), labels)
        require(
            not len(missing),
            "method she",
            f"no training image of {len(missing)} of {classes} classes (class {missing[:1]})",
            "at least one of each class",
        )

    def fit(self, train, labels, head):
        k = train.logits.shape[1]
        right = np.asarray(train.logits).argmax(axis=1) == labels
        wholly_wrong = np.setdiff1d(np.arange(k), labels[right])
        kept = right | np.isin(labels, wholly_wrong)
        rows = np.asarray(train.penultimate)[kept]
        return SHEState(jnp.asarray(class_means(rows, labels[kept])[2], jnp.float32))

    def score(self, state, outputs, head):
        patterns = state.patterns[jnp.argmax(outputs.logits, axis=1)]
        return jnp.sum(outputs.penultimate * patterns, axis=1)
