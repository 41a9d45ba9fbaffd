"""What one pass keeps of a data set, on the host."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.outputs import top_classes

SHOWN = 5  # undecodable images of a set that are named when a result is printed


@dataclass(frozen=True, order=True)
class Skipped:
    """An image that was left out, and why."""

    index: int
    id: str
    reason: str


class Features(NamedTuple):
    """One row an image; undecodable images are left out.

    Attributes:
      extras: what each extractor gave, by its key.
      indices: of each row in the data set.
      skipped: the images that were left out, in the order of the data set.
    """

    pooled: Float[np.ndarray, "n c"]
    logits: Float[np.ndarray, "n k"]
    extras: Mapping[str, Float[np.ndarray, "n ..."]]
    indices: Int[np.ndarray, " n"]
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The class with the largest logit."""
        return top_classes(self.logits)


def joined(parts: Iterable[Features]) -> Features:
    """One after the other."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return Features(
        np.concatenate([part.pooled for part in parts]),
        np.concatenate([part.logits for part in parts]),
        {key: np.concatenate([part.extras[key] for part in parts]) for key in parts[0].extras},
        np.concatenate([part.indices for part in parts]),
        tuple(skipped for part in parts for skipped in part.skipped),
    )


def skipped_lines(name: str, skipped: Sequence[Skipped], images: int) -> list[str]:
    """What is said of a set's undecodable images: how many, and the first by name."""
    if not skipped:
        return []
    lines = [f"{name}: {len(skipped)} of {images} images left out: undecodable"]
    lines += [f"  {image.id}: {image.reason}" for image in skipped[:SHOWN]]
    more = len(skipped) - SHOWN
    return [*lines, f"  ... and {more} more, all in the manifest"] if more > 0 else lines
