"""What every model has in common: named stages in order, a pooling, a head."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.context import Pooling
from jaxood.errors import choose
from jaxood.heads import CosineHead, Head, LinearHead, NormLinearHead
from jaxood.models.layers import mean_over_places
from jaxood.outputs import ModelOutputs, model_outputs


class LinearClassifier(nnx.Module):
    """The parameters of a `LinearHead`."""

    def __init__(self, channels: int, classes: int):
        self.kernel = nnx.Param(jnp.zeros((channels, classes)))
        self.bias = nnx.Param(jnp.zeros(classes))

    def head(self) -> Head:
        return LinearHead(self.kernel[...], self.bias[...])


class NormLinearClassifier(nnx.Module):
    """The parameters of a `NormLinearHead`."""

    def __init__(self, channels: int, classes: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.shift = nnx.Param(jnp.zeros(channels))
        self.kernel = nnx.Param(jnp.zeros((channels, classes)))
        self.bias = nnx.Param(jnp.zeros(classes))
        self.epsilon = epsilon

    def head(self) -> Head:
        return NormLinearHead(
            self.scale[...], self.shift[...], self.kernel[...], self.bias[...], self.epsilon
        )


class CosineClassifier(nnx.Module):
    """The parameters of a `CosineHead`."""

    def __init__(self, channels: int, classes: int, negatives: int = 0):
        self.columns = nnx.Param(jnp.zeros((channels, classes)))
        self.negatives = nnx.Param(jnp.zeros((channels, negatives)))
        self.scale = nnx.Param(jnp.zeros(()))

    def head(self) -> Head:
        return CosineHead(self.columns[...], self.scale[...], self.negatives[...])


Classifier = LinearClassifier | NormLinearClassifier | CosineClassifier


class Backbone(nnx.Module):
    """Stages applied in order to normalised NHWC images, then pooling and head.

    A stage is one residual block or less, named as in the published checkpoints
    ("layer4.2"). Batch norm is folded into the convolutions, so there is no training mode.

    Attributes:
      pooling: "mean" where pooled is the mean over positions; attribution by coalitions and
        purification need that.
      cam_layer: the stage whose output class activation maps use unless told otherwise.
      block_ends: the last stage of each part of the network that works at one resolution, or of
        each quarter where all of it does: what methods over several layers read. All stages where
        nothing else is said.
      together: how many times as many images a CPU takes at once as `images_a_step` says.
      products: JAX's precision of the stages' convolutions and matrix products; see `Arithmetic`.
    """

    def __init__(
        self,
        stages: Mapping[str, nnx.Module],
        classifier: Classifier,
        cam_layer: str | None = None,
        pooling: Pooling = "mean",
        block_ends: Sequence[str] = (),
        together: int = 2,
    ):
        self.stage_names = tuple(stages)  # nnx.Dict forgets the order when it is merged
        self.stages = nnx.Dict(stages)
        self.classifier = classifier
        self.cam_layer = cam_layer or self.stage_names[-1]
        self.pooling = pooling
        self.block_ends = tuple(block_ends) or self.stage_names
        self.together = together
        self.products = "highest"

    @property
    def head(self) -> Head:
        return self.classifier.head()

    def run(
        self,
        inputs: Array,
        start: str | None = None,
        stop: str | None = None,
        in_bands: bool = False,
    ) -> Array:
        """Runs the stages after `start` (None: from the images) up to and including `stop`.

        Args:
          in_bands: as a CPU does it for one image, by `in_bands` of the stages that have that.
        """
        names = self.stage_names
        first = names.index(choose("start", start, names)) + 1 if start else 0
        last = names.index(choose("stop", stop, names)) + 1 if stop else len(names)
        with jax.default_matmul_precision(self.products):
            for name in names[first:last]:
                stage = self.stages[name]
                banded = getattr(stage, "in_bands", None) if in_bands else None
                inputs = (banded or stage)(inputs)
        return inputs

    def outputs(self, features: Array) -> ModelOutputs:
        """Pools what the last stage gave, and applies the head."""
        features = features.astype(jnp.float32)  # the backbone may run in bfloat16
        return model_outputs(self.head, mean_over_places(features), features)

    def spatial(self, activation: Array) -> Float[Array, "n h w c"]:
        """What a stage gave as a map; a model of tokens drops its class token here."""
        return activation

    def __call__(self, images: Float[Array, "n h w 3"]) -> ModelOutputs:
        return self.outputs(self.run(images))
