"""Maps from gradients with respect to the image: a value a colour, joined to one a pixel.

With G the gradient of the target's logit with respect to the normalised image x:

| name                 | map                                             | source                |
| -------------------- | ----------------------------------------------- | --------------------- |
| saliency             | max over colours of abs(G)                      | Simonyan et al. 2014  |
| input-x-gradient     | sum over colours of x G                         | Shrikumar et al. 2016 |
| guided-backprop      | max over colours of abs(guided G) (`guided`)    | Springenberg 2015     |
| integrated-gradients | `integrated_gradients`                          | Sundararajan 2017     |
| smoothgrad           | one of these with its mean over noisy images    | Smilkov et al. 2017   |

captum keeps the colours apart: its values joined in this way are these maps.

Memory: the activations of the whole network for a few images at a time on a CPU, for the batch on
an accelerator.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.gradients import target_logits
from jaxood.attribution.rewrite import with_plain_kernels
from jaxood.compiling import images_a_step, in_steps
from jaxood.context import Attribution, Context, Model

Images = Float[Array, "n h w 3"]
Target = Int[Array, " n"]


def class_scores(model: Model, target: Target) -> Callable[[Images], Float[Array, " n"]]:
    """From images to the logit of each one's target."""
    return lambda images: target_logits(model(images).logits, target)


def input_gradient(scores: Callable[[Images], Float[Array, " n"]], images: Images) -> Images:
    """The gradient of each image's score with respect to the image, in float32."""
    gradient = jax.grad(lambda images: scores(images).sum())
    return with_plain_kernels(gradient)(images).astype(jnp.float32)


class PixelGradient(Attribution):
    """A value a colour of each pixel, and how the colours are joined."""

    @abstractmethod
    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        """The values of each colour, in float32."""

    @abstractmethod
    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        """The map that they make."""

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        values = partial(self.by_colour, context.model, key=context.key)
        step = images_a_step(*context.images.shape[1:3])
        return self.join(in_steps(values, (context.images, context.target), step))


@dataclass(frozen=True)
class Saliency(PixelGradient):
    """The largest absolute gradient over the colours of each pixel."""

    name: ClassVar[str] = "saliency"
    paper: ClassVar[str] = "Simonyan et al., ICLR workshop 2014"

    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        return input_gradient(class_scores(model, target), images)

    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        return jnp.abs(values).max(axis=-1)


@dataclass(frozen=True)
class InputXGradient(PixelGradient):
    """What each pixel adds to the logit to first order, with the mean colour as nothing."""

    name: ClassVar[str] = "input-x-gradient"
    paper: ClassVar[str] = "Shrikumar et al. 2016"

    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        gradient = input_gradient(class_scores(model, target), images)
        return gradient * images.astype(jnp.float32)

    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        return values.sum(axis=-1)
