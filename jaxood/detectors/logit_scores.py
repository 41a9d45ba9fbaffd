"""Scores that read nothing but the logits: no fit, no state.

With p = softmax(logits), k classes:

  msp       max p                                     Hendrycks & Gimpel, ICLR 2017
  maxlogit  max logits                                Hendrycks et al., ICML 2022
  energy    T logsumexp(logits / T)                   Liu et al., NeurIPS 2020
  kl        -(1/k) sum_i log p_i                      as the NNGuide code has it (Park et al. 2023)
  entropy   sum_i p_i log p_i                         minus Shannon's entropy, in nats
  gen       -sum_{top M} p_i^gamma (1 - p_i)^gamma    Liu, Lochman, Zach, CVPR 2023, eq. 5
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require


@dataclass(frozen=True)
class MSP(Detector):
    """The largest softmax probability.

    It says the same to the last bit for all images that the model is sure of; `maxlogit` and
    `energy` still tell them apart.
    """

    name: ClassVar[str] = "msp"
    paper: ClassVar[str] = "Hendrycks, Gimpel, ICLR 2017"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def score(self, state, outputs, head):
        return jax.nn.softmax(outputs.logits, axis=-1).max(axis=-1)


@dataclass(frozen=True)
class MaxLogit(Detector):
    """The largest logit."""

    name: ClassVar[str] = "maxlogit"
    paper: ClassVar[str] = "Hendrycks, Basart, Mazeika et al., ICML 2022"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def score(self, state, outputs, head):
        return outputs.logits.max(axis=-1)


@dataclass(frozen=True)
class Energy(Detector):
    """Minus the free energy; the paper and OpenOOD use a temperature of 1."""

    name: ClassVar[str] = "energy"
    paper: ClassVar[str] = "Liu, Wang, Owens, Li, NeurIPS 2020"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)
    numbers: ClassVar[tuple[str, ...]] = ("temperature",)

    temperature: float = 1.0

    def __post_init__(self):
        require(self.temperature > 0, "energy.temperature", self.temperature, "a positive number")

    def score(self, state, outputs, head):
        scaled = outputs.logits / self.temperature
        return self.temperature * jax.nn.logsumexp(scaled, axis=-1)


@dataclass(frozen=True)
class KL(Detector):
    """Cross-entropy of the uniform distribution against the prediction: KL(U, p) + log k."""

    name: ClassVar[str] = "kl"
    paper: ClassVar[str] = "Park, Jung, Teoh, ICCV 2023"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def score(self, state, outputs, head):
        return -jax.nn.log_softmax(outputs.logits, axis=-1).mean(axis=-1)


@dataclass(frozen=True)
class Entropy(Detector):
    """Minus the entropy of the prediction."""

    name: ClassVar[str] = "entropy"
    paper: ClassVar[str] = "Shannon, 1948"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    def score(self, state, outputs, head):
        log_p = jax.nn.log_softmax(outputs.logits, axis=-1)
        return jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


@dataclass(frozen=True)
class GEN(Detector):
    """Minus the generalised entropy of the `top` most likely classes (all, where fewer exist).

    Paper's and OpenOOD's defaults for ImageNet: gamma 0.1, M 100.
    """

    name: ClassVar[str] = "gen"
    paper: ClassVar[str] = "Liu, Lochman, Zach, CVPR 2023"
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)
    numbers: ClassVar[tuple[str, ...]] = ("gamma",)

    gamma: float = 0.1
    top: int = 100

    def __post_init__(self):
        require(self.gamma > 0, "gen.gamma", self.gamma, "a positive number")
        require(self.top > 0, "gen.top", self.top, "a positive number of classes")

    def score(self, state, outputs, head):
        p = jax.nn.softmax(outputs.logits, axis=-1)
        largest, _ = jax.lax.top_k(p, min(self.top, p.shape[-1]))
        return -jnp.sum(largest**self.gamma * (1.0 - largest) ** self.gamma, axis=-1)
