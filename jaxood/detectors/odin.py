"""ODIN: the largest softmax probability at a high temperature, of an image nudged towards it.

  x' = x - epsilon * sign(-d log S_t(x; T) / dx) / s,   t = argmax,   S = softmax(logits / T)
  score = log(k max S(x'; T))

Liang, Li, Srikant: "Enhancing The Reliability of Out-of-distribution Image Detection in Neural
Networks", ICLR 2018. T 1000 and epsilon 0.0014 of the paper and OpenOOD; s = (63, 62.1, 66.7)/255,
the colour scales by which the authors' code and OpenOOD divide for every data set.

Near T = 1000 all probabilities are almost 1/k, and float32 has few digits left to tell them
apart: the logarithm of k times the probability has the same order and keeps them.

The nudged image is a view of its own, so transforms see its features: `react+odin`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.detectors.contract import Detector, require
from jaxood.detectors.parameters import label
from jaxood.extraction import ForwardContext

COLOUR_SCALES = (63.0 / 255.0, 62.1 / 255.0, 66.7 / 255.0)


@dataclass(frozen=True)
class NudgedFeatures:
    """Extractor of the pooled features of the nudged image."""

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __call__(self, context: ForwardContext) -> Float[Array, "n c"]:
        def confidence(images):
            logits = context.forward(images).logits / self.temperature
            return (logits.max(axis=1) - jax.nn.logsumexp(logits, axis=1)).sum()

        gradient = jax.grad(confidence)(context.images)
        towards = jnp.where(gradient > 0, 1.0, -1.0)
        step = self.epsilon * towards / jnp.asarray(COLOUR_SCALES)[None, None, None]
        images = context.images.astype(jnp.float32) + step
        return context.forward(images.astype(context.images.dtype)).pooled


@dataclass(frozen=True)
class ODIN(Detector):
    """Log of the largest probability at `temperature`, relative to the uniform's."""

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __post_init__(self):
        require(self.temperature > 0, "odin.temperature", self.temperature, "a positive number")
        require(self.epsilon >= 0, "odin.epsilon", self.epsilon, "a number not below 0")

    @property
    def view(self):
        nudged = NudgedFeatures(self.temperature, self.epsilon)
        return label("odin", nudged), nudged

    def score(self, state, outputs, head):
        behind = outputs.logits - outputs.logits.max(axis=1, keepdims=True)
        return -jnp.log1p(jnp.expm1(behind / self.temperature).mean(axis=1))
