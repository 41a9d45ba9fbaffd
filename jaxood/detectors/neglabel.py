"""NegLabel: the share of the classes in a softmax over the classes and many negative labels.

  P_g = sum_{i in classes} e_i / (sum_{i in classes} e_i + sum_{j in group g} e_j)
  e_i = exp(cos(z, t_i) / temperature)
  score = log(P / (1 - P)),   P = mean over groups of P_g

z the image's embedding, t_i that of a text: the columns of a cosine head, and its `negatives`,
labels of what the classes are not, mined from a corpus and put there by who makes the head.

Jiang, Liu, Fang, Chen, Liu, Zheng, Han: "Negative Label Guided OOD Detection with Pretrained
Vision-Language Models", ICLR 2024: temperature 0.01, 10,000 labels in 100 groups. The paper scores
P, which says the same to the last bit for all images that are far from every negative label; its
log odds have the same order. Groups have the same size, what is left over of the labels is dropped,
as in the authors' code. There they are dealt at random, here label j is in group j modulo `groups`.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.mcm import require_cosine
from jaxood.errors import require
from jaxood.heads import normalised


@dataclass(frozen=True)
class NegLabel(Detector):
    """Log odds of the classes against the negative labels of a cosine head."""

    name: ClassVar[str] = "neglabel"
    paper: ClassVar[str] = "Jiang, Liu, Fang et al., ICLR 2024"
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate", "logits")
    numbers: ClassVar[tuple[str, ...]] = ("temperature",)

    groups: int = 100
    temperature: float = 0.01

    def __post_init__(self):
        require(self.groups > 0, "neglabel.groups", self.groups, "a positive number")
        require(self.temperature > 0, "neglabel.temperature", self.temperature, "a positive number")

    def check_head(self, head):
        negatives = require_cosine(self.name, head).negatives
        given = negatives is not None and negatives.shape[1] > 0
        remedy = "Give the head some, or take mcm"
        require(given, f"method {self.name}", "a CosineHead without negatives", "some", remedy)

    def score(self, state, outputs, head):
        n, (_, m) = len(outputs.logits), head.negatives.shape
        groups = min(self.groups, m)
        size = m // groups
        classes = outputs.logits / (head.scale * self.temperature)
        classes = jax.nn.logsumexp(classes, axis=1)
        columns = normalised(head.negatives.T).T[:, : size * groups]
        cosines = jnp.matmul(outputs.penultimate, columns, precision="highest")
        negatives = (cosines / self.temperature).reshape(n, size, groups)
        negatives = jax.nn.logsumexp(negatives, axis=1)
        odds = classes[:, None] - negatives
        for_classes, against = (jax.nn.log_sigmoid(sign * odds) for sign in (1.0, -1.0))
        return jax.nn.logsumexp(for_classes, axis=1) - jax.nn.logsumexp(against, axis=1)
