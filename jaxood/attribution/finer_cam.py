"""Finer-CAM: Grad-CAM of what tells the target from the classes that look like it.

    map = relu(sum_c A mean_i G),  G = d y / d A
    y   = sum_d q_d (logit_t - gamma logit_d),  q = softmax over the references d of their logits

(Zhang et al., CVPR 2025). The references are the classes whose logits are nearest to the target's.
So the authors' code, which the package grad-cam has taken over: it differentiates the weights q as
well, and adds 1e-9 to the sum of their probabilities, which leaves nothing of a map where the
model is surer than that; here nothing is added. The paper averages over references.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.gradient_cam import POSITIONS, weighted_map
from jaxood.attribution.gradients import activation_and_gradient, target_logits
from jaxood.context import Attribution, Context
from jaxood.errors import require


def finer_logits(
    logits: Float[Array, "n k"], target: Int[Array, " n"], references: int, gamma: float
) -> Float[Array, " n"]:
    """The target's logit against those of its references."""
    logits = logits.astype(jnp.float32)
    of_target = target_logits(logits, target)
    is_target = jnp.arange(logits.shape[1])[None] == target[:, None]
    distance = jnp.where(is_target, jnp.inf, jnp.abs(logits - of_target[:, None]))
    _, nearest = jax.lax.top_k(-distance, min(references, logits.shape[1] - 1))
    of_references = jnp.take_along_axis(logits, nearest, axis=1)
    weights = jax.nn.softmax(of_references, axis=1)
    return jnp.sum(weights * (of_target[:, None] - gamma * of_references), axis=1)


@dataclass(frozen=True)
class FinerCAM(Attribution):
    """Grad-CAM of the target's logit against those of the classes nearest to it.

    Attributes:
      layer: None for the model's choice.
      references: how many classes stand against the target.
      gamma: how much of their logits is taken off; 0: Grad-CAM, but for the weights' gradient.
    """

    name: ClassVar[str] = "finer-cam"
    paper: ClassVar[str] = "Zhang et al., CVPR 2025"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    references: int = 3
    gamma: float = 1.0

    def __post_init__(self):
        require(self.references >= 1, f"{self.name}.references", self.references, "1 or more")
        require(0 <= self.gamma < math.inf, f"{self.name}.gamma", self.gamma, "0 or more")

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        def score(logits: Array) -> Float[Array, " n"]:
            return finer_logits(logits, context.target, self.references, self.gamma)

        a, g = activation_and_gradient(context, self.layer, score)
        return weighted_map(a, g.mean(axis=POSITIONS, keepdims=True))
