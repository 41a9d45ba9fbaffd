"""NegLabel: the share of the classes in a softmax over the classes and many negative labels.

  P_g = sum_{i in classes} e_i / (sum_{i in classes} e_i + sum_{j in group g} e_j)
  e_i = exp(cos(z, t_i) / temperature)
  score = log(P / (1 - P)),   P = mean over groups of P_g

z the image's embedding, t_i that of a text: the columns of a cosine head, the last `negatives` of
which are labels of what the classes are not, mined from a corpus and put there by who makes the
head. How many there are is for the user to say: nothing in a head tells them from classes.

Jiang, Liu, Fang, Chen, Liu, Zheng, Han: "Negative Label Guided OOD Detection with Pretrained
Vision-Language Models", ICLR 2024: temperature 0.01, 10,000 labels in 100 groups. The paper scores
P, which says the same to the last bit for all images that are far from every negative label; its
log odds have the same order. Groups have the same size, what is left over of the labels is dropped,
as in the authors' code. There they are dealt at random, here label j is in group j modulo `groups`.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.mcm import require_cosine
from jaxood.errors import require


@dataclass(frozen=True)
class NegLabel(Detector):
    """Log odds of the classes against negative labels, the last `negatives` columns of the head."""

    name: ClassVar[str] = "neglabel"
    paper: ClassVar[str] = "Jiang, Liu, Fang et al., ICLR 2024"
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)
    numbers: ClassVar[tuple[str, ...]] = ("temperature",)

    negatives: int = 0
    groups: int = 100
    temperature: float = 0.01

    def __post_init__(self):
        require(self.negatives >= 0, "neglabel.negatives", self.negatives, "a number not below 0")
        require(self.groups > 0, "neglabel.groups", self.groups, "a positive number")
        require(self.temperature > 0, "neglabel.temperature", self.temperature, "a positive number")

    def check_head(self, head):
        k = require_cosine(self.name, head).columns.shape[1]
        wanted = f"how many of the {k} columns of the head, its last ones, are negative labels"
        require(0 < self.negatives < k, "neglabel.negatives", self.negatives, wanted)

    def score(self, state, outputs, head):
        n, k = outputs.logits.shape
        groups = min(self.groups, self.negatives)
        size = self.negatives // groups
        scaled = outputs.logits / (head.scale * self.temperature)
        classes = jax.nn.logsumexp(scaled[:, : k - self.negatives], axis=1)
        negatives = scaled[:, k - self.negatives :][:, : size * groups]
        negatives = jax.nn.logsumexp(negatives.reshape(n, size, groups), axis=1)
        odds = classes[:, None] - negatives
        for_classes, against = (jax.nn.log_sigmoid(sign * odds) for sign in (1.0, -1.0))
        return jax.nn.logsumexp(for_classes, axis=1) - jax.nn.logsumexp(against, axis=1)
