"""MC dropout: how sure the model is on average, with parts of its features left out at random.

  score = max_k mean_s softmax(head(m_s z / (1 - rate)))_k

m_s: `samples` draws of a 0 (of probability `rate`) or a 1 for every channel of the penultimate
features z.

Gal, Ghahramani: "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep
Learning", ICML 2016. Dropout in front of the linear layer alone, rate 0.5, as OpenOOD adds it to
any network; dropout that is inside of one is not run. OpenOOD takes the softmax of the mean logits,
which for a linear layer are nearly those without dropout; here it is the mean of the softmax, as
published and as in pytorch-ood. All images see the same draws, of `seed`, so that no score depends
on the batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require, require_seed


@dataclass(frozen=True)
class MCDropout(Detector):
    """The largest of the mean probabilities under dropout in front of the linear layer."""

    name: ClassVar[str] = "mc-dropout"
    paper: ClassVar[str] = "Gal, Ghahramani, ICML 2016"
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)

    rate: float = 0.5
    samples: int = 30
    seed: int = 0

    def __post_init__(self):
        require(0 < self.rate < 1, "mc-dropout.rate", self.rate, "a number between 0 and 1")
        require(self.samples > 0, "mc-dropout.samples", self.samples, "a positive number")
        require_seed("mc-dropout.seed", self.seed)

    def score(self, state, outputs, head):
        features, keep = outputs.penultimate, 1 - self.rate
        shape = (self.samples, features.shape[1])
        key = jax.random.key(self.seed, impl="threefry2x32")  # the same when a file is loaded
        kept = jax.random.bernoulli(key, keep, shape)

        def add(total, channels):
            left = jnp.where(channels[None, :], features / keep, 0.0)
            return total + jax.nn.softmax(head.classify(left), axis=1), None

        zeros = jnp.zeros((len(features), head.kernel.shape[1]), jnp.float32)
        return jax.lax.scan(add, zeros, kept)[0].max(axis=1) / self.samples
