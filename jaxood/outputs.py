"""What a model gives for a batch, at the depths that methods read."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.heads import AnyArray, Head

ROWS = 4096  # at once, of what may be larger than memory


class ModelOutputs(NamedTuple):
    """A batch at the depths of a classifier.

    Attributes:
      feature_map: last spatial activations, or None once they have been left on the device.
      pooled: mean of the feature map over positions (or the class token), before any norm
        that belongs to the head.
      penultimate: what enters the head's linear layer: pooled itself where the head has no norm.
      logits: what the head makes of them.
      extras: what else an extractor kept for the methods that ask for it, by the extractor's key.
    """

    feature_map: Float[AnyArray, "n h w m"] | None
    pooled: Float[AnyArray, "n c"]
    penultimate: Float[AnyArray, "n c"]
    logits: Float[AnyArray, "n k"]
    extras: Mapping[str, Float[AnyArray, "n ..."]] = {}


def model_outputs(
    head: Head,
    pooled: Float[AnyArray, "n c"],
    feature_map: Float[AnyArray, "n h w m"] | None = None,
    extras: Mapping[str, Float[AnyArray, "n ..."]] = {},  # noqa: B006 (never changed)
) -> ModelOutputs:
    """The outputs that follow from pooled features: what a model returns, what a view makes."""
    penultimate = head.penultimate(pooled)
    return ModelOutputs(feature_map, pooled, penultimate, head.classify(penultimate), extras)


def top_classes(logits: Float[AnyArray, "n k"]) -> Int[np.ndarray, " n"]:
    """The class with the largest logit of each row, on the host.

    Block by block: NumPy's argmax copies an array that is read-only, as one mapped from a file is.
    """
    blocks = [logits[first : first + ROWS] for first in range(0, max(len(logits), 1), ROWS)]
    return np.concatenate([np.asarray(block).argmax(axis=1) for block in blocks])


def with_penultimate(
    outputs: ModelOutputs, penultimate: Float[AnyArray, "n c"], head: Head
) -> ModelOutputs:
    """The same images with other penultimate features, from which the logits follow.

    No pooled features need lead to them through a norm, so what comes later and reads pooled
    features sees these too.
    """
    return ModelOutputs(None, penultimate, penultimate, head.classify(penultimate), outputs.extras)
