"""GradNorm: size of the gradient that would make the prediction uniform, in the last layer.

  score = || d KL(U || softmax(W z + b)) / dW ||_1 = ||z||_1 * ||p - 1/k||_1

Huang, Geng, Li: "On the Importance of Gradients for Detecting Distributional Shifts in the Wild",
NeurIPS 2021. The gradient of a linear layer is the outer product of p - 1/k and z, so its norm is
the product of two norms and no backward pass is needed. OpenOOD sums over the uniform targets
instead of averaging: k times this. Where a norm belongs to the head, W is still the linear layer
and z what enters it, the penultimate features; the parameters of the norm are no part of the score.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.contract import Depth, Detector


@dataclass(frozen=True)
class GradNorm(Detector):
    """L1 norm of the last layer's gradient, in closed form."""

    name: ClassVar[str] = "gradnorm"
    paper: ClassVar[str] = "Huang, Geng, Li, NeurIPS 2021"
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")

    def score(self, state, outputs, head):
        p = jax.nn.softmax(outputs.logits, axis=1)
        features = outputs.penultimate
        return jnp.abs(features).sum(axis=1) * jnp.abs(p - 1 / p.shape[1]).sum(axis=1)
