"""ODIN: the largest softmax probability at a high temperature, of an image nudged towards it.

  x' = x - epsilon * sign(-d log S_t(x; T) / dx) / s,   t = argmax,   S = softmax(logits / T)
  score = log(k max S(x'; T))

Liang, Li, Srikant: "Enhancing The Reliability of Out-of-distribution Image Detection in Neural
Networks", ICLR 2018. T 1000 and epsilon 0.0014 of the paper and OpenOOD; s = (63, 62.1, 66.7)/255,
the colour scales by which the authors' code divides for every data set. OpenOOD divides by those
of the data set: its steps are the same for CIFAR-10, and 8 to 16 % longer for ImageNet.

Near T = 1000 all probabilities are almost 1/k, and float32 has few digits left to tell them
apart: the logarithm of k times the probability has the same order and keeps them.

The nudged image is a view that comes with the method, so transforms see its features:
`react+odin`. The step is below what bfloat16 tells apart where |x| > 2: in a run in bfloat16 the
model's weights stay as they are there, and the arithmetic is float32's.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.context import Context, Model, View
from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require
from jaxood.outputs import AnyArray

COLOUR_SCALES = (63.0 / 255.0, 62.1 / 255.0, 66.7 / 255.0)


@dataclass(frozen=True)
class NudgedFeatures(View):
    """The pooled features of the nudged image."""

    name: ClassVar[str] = "odin"
    paper: ClassVar[str] = "Liang, Li, Srikant, ICLR 2018"

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __call__(self, context: Context) -> Float[Array, "n c"]:
        model, images, gradient = confidence_gradient(context, self.temperature)
        return jnp.asarray(model(images + step_along(gradient, self.epsilon)).pooled)


def confidence_gradient(
    context: Context, temperature: float
) -> tuple[Model, Float[Array, "n h w 3"], Float[Array, "n h w 3"]]:
    """Model and images in float32, and d log S_t / dx."""
    model = _in_float32(context.model, context.images.dtype)

    def confidence(images):
        logits = model(images).logits / temperature
        return (logits.max(axis=1) - jax.nn.logsumexp(logits, axis=1)).sum()

    images = context.images.astype(jnp.float32)
    return model, images, jax.grad(confidence)(images)


def step_along(gradient: Float[Array, "n h w 3"], epsilon: float) -> Float[Array, "n h w 3"]:
    """What is added to the images."""
    towards = jnp.where(gradient > 0, 1.0, -1.0)
    return epsilon * towards / jnp.asarray(COLOUR_SCALES)[None, None, None]


def log_confidence(logits: Float[AnyArray, "n k"], temperature: float) -> Float[Array, " n"]:
    """The logarithm of k max S."""
    behind = logits - logits.max(axis=1, keepdims=True)
    return -jnp.log1p(jnp.expm1(behind / temperature).mean(axis=1))


def _in_float32(model: Model, dtype: jnp.dtype) -> Model:
    """The model with its weights in float32, where the run is in another `dtype`."""
    if dtype == jnp.float32:
        return model
    graphdef, weights = nnx.split(model)

    def converted(leaf):
        return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return nnx.merge(graphdef, jax.tree.map(converted, weights))


@dataclass(frozen=True)
class ODIN(Detector):
    """Log of the largest probability at `temperature`, relative to the uniform's."""

    name: ClassVar[str] = "odin"
    paper: ClassVar[str] = "Liang, Li, Srikant, ICLR 2018"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    temperature: float = 1000.0
    epsilon: float = 0.0014

    def __post_init__(self):
        require(self.temperature > 0, "odin.temperature", self.temperature, "a positive number")
        require(self.epsilon >= 0, "odin.epsilon", self.epsilon, "a number not below 0")

    @property
    def view(self):
        return NudgedFeatures(self.temperature, self.epsilon)

    def score(self, state, outputs, head):
        return log_confidence(outputs.logits, self.temperature)
