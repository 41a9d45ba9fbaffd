"""GradUncertainty: size of the last layer's gradient towards "all classes at once".

  score = || d sum_i -log p_i / d(W, b) ||^2 = ||k p - 1||^2 (||z||^2 + 1)

p the softmax of W z + b, k classes, z the penultimate features.

Lee, AlRegib: "Gradients as a Measure of Uncertainty in Neural Networks", ICIP 2020: the binary
cross-entropy against a label of ones, which no training image had. The paper takes the gradients of
every layer apart, and trains a small network on those of known and foreign images; here it is their
squared length in the last layer alone, higher for in-distribution, as pytorch-ood computes it. No
backward pass is needed: a linear layer's gradient is the outer product of k p - 1 and (z, 1).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.contract import Depth, Detector


@dataclass(frozen=True)
class GradUncertainty(Detector):
    """Squared length of the last layer's gradient, in closed form."""

    name: ClassVar[str] = "graduncertainty"
    paper: ClassVar[str] = "Lee, AlRegib, ICIP 2020"
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    def score(self, state, outputs, head):
        p = jax.nn.softmax(outputs.logits, axis=1)
        towards = jnp.sum((p.shape[1] * p - 1) ** 2, axis=1)
        return towards * (jnp.sum(outputs.penultimate**2, axis=1) + 1)
