"""A model cut in two at a layer: what the layer gave, and the way from there to the logits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxood.errors import UsageError, choose


class Split(NamedTuple):
    """A batch at a layer.

    Attributes:
      activation: as the layer gave it (a model of tokens: tokens).
      tail: from such activations to logits.
      spatial: from such activations, or gradients with respect to them, to a map.
    """

    activation: Float[Array, "n ... c"]
    tail: Callable[[Float[Array, "n ... c"]], Float[Array, "n k"]]
    spatial: Callable[[Float[Array, "n ... c"]], Float[Array, "n h w c"]]


def feature_map(model: nnx.Module, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w c"]:
    """The model's last spatial activations.

    Raises:
      UsageError: for a model of the user's own that gives none.
    """
    features = model(images).feature_map
    if features is None:
        raise UsageError("model", "outputs without a feature map", "ModelOutputs with one")
    return features


def split(model: nnx.Module, images: Float[Array, "n h w 3"], layer: str | None = None) -> Split:
    """Runs the model up to and including `layer` (None: its own choice for activation maps).

    A model of the user's own without named stages has one layer, its feature map.

    Raises:
      UsageError: for a layer that the model does not have, a model without a feature map.
    """
    if hasattr(model, "run"):
        layer = choose("layer", layer, model.stage_names) if layer else model.cam_layer

        def tail(activation):
            return model.outputs(model.run(activation, start=layer)).logits

        return Split(model.run(images, stop=layer), tail, model.spatial)
    if layer:
        raise UsageError("layer", repr(layer), "none, as this model has no named stages")
    return Split(feature_map(model, images), lambda a: model.head(a.mean(axis=(1, 2))), lambda a: a)


def target_logits(logits: Float[Array, "n k"], target: Int[Array, " n"]) -> Float[Array, " n"]:
    """Each image's logit of its own class."""
    return jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0].astype(jnp.float32)


def activation_and_gradient(
    model: nnx.Module,
    images: Float[Array, "n h w 3"],
    target: Int[Array, " n"],
    layer: str | None = None,
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """The layer's map and the gradient of the target's logit with respect to it, in float32."""
    parts = split(model, images, layer)
    gradient = jax.grad(lambda a: target_logits(parts.tail(a), target).sum())(parts.activation)
    maps = (parts.spatial(array).astype(jnp.float32) for array in (parts.activation, gradient))
    return tuple(maps)
