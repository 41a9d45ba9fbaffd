"""Which training images a detector is fitted on: drawn before any of them is read.

Nearest-neighbour detectors search a small part of the training set: 1 % of ImageNet's 1,281,167
images, 12,811 of them, drawn at random (Park, Jung, Teoh, ICCV 2023, as their code does it).

1 % of a small set is too few: the k nearest of ten images are all of them, and statistics such
as a covariance want more rows than there are channels (2,048 in ResNet-50). What 1 % saves is
time and memory, and both are small up to some ten thousand rows: 80 MB, and less time to search
than the backbone takes. So a draw without a given fraction takes 1 % but at least 10,000 images,
and a smaller set whole. A fraction that is asked for is taken as it is.
"""

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

FRACTION = 0.01
LEAST = 10_000


def bank_size(count: int, fraction: float | None = None) -> int:
    """How many of `count` images make the bank: `fraction` of them, else as told above."""
    if fraction is not None:
        return max(1, int(count * fraction))
    return min(count, max(int(count * FRACTION), LEAST))


def draw_bank(
    count: int,
    labels: Int[np.ndarray, " n"] | None,
    fraction: float | None,
    key: PRNGKeyArray,
    balanced: bool = False,
) -> Int[np.ndarray, " b"]:
    """Draws the indices of the bank; the same key draws the same ones.

    Args:
      labels: classes, for a balanced draw.
      balanced: as many of each class as of any other; small classes, once used up, leave their
        share to the rest. Otherwise every image is as likely as any other.

    Returns:
      In rising order, so that the images are read in theirs.
    """
    size = bank_size(count, fraction)
    order = np.asarray(jax.random.permutation(key, count))
    if balanced and labels is not None:
        order = order[np.argsort(_turns(np.asarray(labels)[order]), kind="stable")]
    return np.sort(order[:size])


def _turns(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each entry, how many of the same class come before it."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turns = np.empty(len(labels), int)
    turns[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return turns
