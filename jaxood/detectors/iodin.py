"""i-ODIN: ODIN that nudges a single value of the image, the one on which confidence depends most.

  x'_j = x_j - epsilon * sign(-g_j) / s_j   where |g_j| is largest, x'_j = x_j elsewhere
  g = d log S_t(x; T) / dx,   t = argmax,   S = softmax(logits / T)
  score = log(k max S(x'; T))

Regmi: "Going Beyond Conventional OOD Detection", 2024 (arXiv 2411.10794), as in OpenOOD: a value is
one colour of one pixel, T 1000 and epsilon 0.0014. s and the logarithm as for `odin`. Of equal
values the first is nudged.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.context import Context, View
from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.odin import confidence_gradient, log_confidence, step_along
from jaxood.errors import require


@dataclass(frozen=True)
class NudgedValue(View):
    """The pooled features of the image with one value nudged."""

    name: ClassVar[str] = "i-odin"
    paper: ClassVar[str] = "Regmi, 2024"

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __call__(self, context: Context) -> Float[Array, "n c"]:
        model, images, gradient = confidence_gradient(context, self.temperature)
        size = jnp.abs(gradient).reshape(len(gradient), -1)
        largest = jnp.arange(size.shape[1])[None, :] == jnp.argmax(size, axis=1)[:, None]
        step = step_along(gradient, self.epsilon)
        nudged = images + jnp.where(largest.reshape(images.shape), step, 0.0)
        return jnp.asarray(model(nudged).pooled)


@dataclass(frozen=True)
class IODIN(Detector):
    """As `odin`, of an image with one value nudged."""

    name: ClassVar[str] = "i-odin"
    paper: ClassVar[str] = "Regmi, 2024"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __post_init__(self):
        require(self.temperature > 0, "i-odin.temperature", self.temperature, "a positive number")
        require(self.epsilon >= 0, "i-odin.epsilon", self.epsilon, "a number not below 0")

    @property
    def view(self):
        return NudgedValue(self.temperature, self.epsilon)

    def score(self, state, outputs, head):
        return log_confidence(outputs.logits, self.temperature)
