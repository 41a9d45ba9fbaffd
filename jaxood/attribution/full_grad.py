"""FullGrad: input gradient and the gradient at every bias, gathered at the image's size.

    map = psi(G_x * x) + sum over layers l and channels c of psi(G_l * b_l)_c
    psi = absolute value, scaled to [0, 1] over positions, enlarged bilinearly

(Srinivas & Fleuret, NeurIPS 2019). G_l is the gradient of the target's logit with respect to what
the layer's bias is added to, so that a network of ReLUs is complete:
logit = sum G_x * x + sum over biases G_l * b_l. A folded batch norm's bias is the one to take.
Biases of the head and others without positions are not in the map. The package grad-cam
has the same definition, with 1e-7 added to the scale of each channel.

Memory: the activations of the whole network, and as many gradients, for the whole batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Float

from jaxood.attribution.gradients import target_logits
from jaxood.attribution.heatmap import unit_scale, upsample
from jaxood.attribution.rewrite import Traced, rewritten
from jaxood.context import Attribution, Context
from jaxood.errors import UsageError

CONVOLUTIONAL = "a convolutional network"


def _bias_of(equation: JaxprEqn, inputs: Sequence[Traced]) -> Array | None:
    """What depends on the weights only in a sum with what depends on the image, by position."""
    if equation.primitive.name != "add" or inputs[0].varies == inputs[1].varies:
        return None
    bias, other = sorted(inputs, key=lambda item: item.varies)
    return bias.value if other.value.ndim == 4 and bias.value.ndim == 4 else None


def gradient_parts(
    score: Callable[[Float[Array, "n h w 3"]], Float[Array, ""]],
    images: Float[Array, "n h w 3"],
) -> tuple[Float[Array, "n h w 3"], list[Float[Array, "n h2 w2 c"]]]:
    """Gradient times value at the input, and at each bias of a layer with positions.

    Raises:
      UsageError: for a model that has no such layer, or attention or layer norms: they multiply
        what depends on the image with itself, so that the parts do not add up to the logit.
    """
    biases = []

    def find(equation: JaxprEqn, inputs: Sequence[Traced]) -> None:
        kind, varies = equation.primitive.name, [item.varies for item in inputs]
        if kind == "dot_general" and all(varies):
            raise UsageError("method", "fullgrad for a model with attention", CONVOLUTIONAL)
        if kind in ("rsqrt", "sqrt") and any(varies):
            raise UsageError("method", "fullgrad for a model with layer norms", CONVOLUTIONAL)
        bias = _bias_of(equation, inputs)
        if bias is not None:
            shape = jnp.broadcast_shapes(*(item.value.shape for item in inputs))
            biases.append(jax.ShapeDtypeStruct(shape, bias.dtype))

    jax.eval_shape(rewritten(score, find), images)
    if not biases:
        raise UsageError(
            "method", "fullgrad for a model without biased convolutions", CONVOLUTIONAL
        )

    def watched(images, shifts):
        values, remaining = [], iter(shifts)

        def shift(equation: JaxprEqn, inputs: Sequence[Traced]) -> Array | None:
            bias = _bias_of(equation, inputs)
            if bias is None:
                return None
            values.append(bias)
            return inputs[0].value + inputs[1].value + next(remaining)

        return rewritten(score, shift)(images), values

    shifts = [jnp.zeros(bias.shape, bias.dtype) for bias in biases]
    (at_input, at_biases), values = jax.grad(watched, argnums=(0, 1), has_aux=True)(images, shifts)
    return at_input * images, [g * b for g, b in zip(at_biases, values, strict=True)]


@dataclass(frozen=True)
class FullGrad(Attribution):
    """What the image and the biases of all layers add to the logit, by their gradients."""

    name: ClassVar[str] = "fullgrad"
    paper: ClassVar[str] = "Srinivas & Fleuret, NeurIPS 2019"

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        def score(images: Array) -> Float[Array, ""]:
            return target_logits(context.model(images).logits, context.target).sum()

        images = context.images
        at_input, at_biases = gradient_parts(score, images)
        total = jnp.zeros(images.shape[:3])
        size = images.shape[1], images.shape[2]
        for part in (at_input, *at_biases):
            n, h, w, c = part.shape
            channels = jnp.moveaxis(jnp.abs(part.astype(jnp.float32)), -1, 1).reshape(n * c, h, w)
            summed = unit_scale(channels).reshape(n, c, h, w).sum(axis=1)
            # Enlarging is linear: once a layer, not once a channel.
            total += upsample(summed, size, "bilinear", align_corners=False)
        return total
