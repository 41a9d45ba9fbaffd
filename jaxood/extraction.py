"""What runs on the device beside the forward pass, while the feature map is at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Array, Float

from jaxood.outputs import Head, ModelOutputs


@dataclass(frozen=True)
class ForwardContext:
    """One batch inside the compiled step.

    Attributes:
      images: normalised.
      outputs: with the feature map.
      forward: images to outputs, for extractors that need input gradients.
      pooling: of the model, as `Backbone.pooling`.
    """

    images: Float[Array, "n h w 3"]
    outputs: ModelOutputs
    head: Head
    forward: Callable[[Float[Array, "n h w 3"]], ModelOutputs]
    pooling: str = "mean"


class Extractor(Protocol):
    """Keeps a small array of each image that needs the feature map or the input gradient.

    A frozen dataclass: its fields enter the fingerprint of stored features. Pure, and per image:
    a row of the result depends on the same row of the batch only.
    """

    def __call__(self, context: ForwardContext) -> Float[Array, "n d"]: ...
