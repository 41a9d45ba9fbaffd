"""MCM: how sure the match of the image with the class names is, in a joint space of both.

  score = max_k softmax(cos(z, t_k) / temperature)

z the image's embedding, t_k that of the text of class k: the columns of a cosine head.

Ming, Cai, Gu, Sun, Li, Li: "Delving into Out-of-Distribution Detection with Vision-Language
Representations", NeurIPS 2022; temperature 1, as there. The head's own scale is divided out.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import UsageError, require
from jaxood.heads import CosineHead, Head


def require_cosine(name: str, head: Head) -> CosineHead:
    """The head, when its logits are scaled cosines.

    Raises:
      UsageError: otherwise.
    """
    if not isinstance(head, CosineHead):
        got, remedy = f"a {type(head).__name__}", "It compares images with texts; take msp"
        raise UsageError(f"method {name}", got, "a CosineHead", remedy)
    return head


@dataclass(frozen=True)
class MCM(Detector):
    """Softmax of the cosines alone."""

    name: ClassVar[str] = "mcm"
    paper: ClassVar[str] = "Ming, Cai, Gu, Sun, Li, Li, NeurIPS 2022"
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)
    numbers: ClassVar[tuple[str, ...]] = ("temperature",)

    temperature: float = 1.0

    def __post_init__(self):
        require(self.temperature > 0, "mcm.temperature", self.temperature, "a positive number")

    def check_head(self, head):
        require_cosine(self.name, head)

    def score(self, state, outputs, head):
        cosines = outputs.logits / head.scale
        return jax.nn.softmax(cosines / self.temperature, axis=1).max(axis=1)
