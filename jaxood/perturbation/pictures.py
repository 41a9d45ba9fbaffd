"""What takes the place of removed pixels: pictures of the image's size, from the image alone.

Made of the normalised image, so that "zero" is the mean colour of the data the model was trained
on, and "mean" that of the image. They do not depend on what is removed; `imputation` has fillings
that do.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from jaxood.perturbation.imputation import blurred
from jaxood.preprocessing import Preprocessing

IMAGE = "image"

Picture = Float[Array, "h w 3"]


def _mean(image: Picture, black: Picture, key: PRNGKeyArray) -> Picture:
    return jnp.broadcast_to(image.mean(axis=(0, 1), keepdims=True), image.shape)


def _uniform(image: Picture, black: Picture, key: PRNGKeyArray) -> Picture:
    return jax.random.uniform(key, image.shape, minval=image.min(), maxval=image.max())


BASELINES: dict[str, Callable[[Picture, Picture, PRNGKeyArray], Picture]] = {
    "blur": lambda image, black, key: blurred(image[None])[0],
    "mean": _mean,
    "zero": lambda image, black, key: jnp.zeros_like(image),
    "black": lambda image, black, key: black,
    "uniform": _uniform,
}


@partial(jax.jit, static_argnums=(0, 1))
def pictures(
    names: tuple[str, ...],
    preprocessing: Preprocessing,
    image: UInt8[Array, "h w 3"],
    key: PRNGKeyArray,
) -> Float[Array, "k h w 3"]:
    """Normalised pictures by name, "image" or one of `BASELINES`; `key` draws "uniform"."""
    black, normalised = preprocessing.normalise(jnp.stack([jnp.zeros_like(image), image]))

    def made(name: str) -> Picture:
        return normalised if name == IMAGE else BASELINES[name](normalised, black, key)

    return jnp.stack([made(name) for name in names])
