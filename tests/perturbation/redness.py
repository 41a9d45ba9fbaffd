"""A model whose answer can be seen, and pictures for it."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxood
from jaxood.models.loading import own_model

SIDE = 16


class Redness(nnx.Module):
    """Class 0 when the picture is red on average, 1 when blue; cells of 4 x 4 pixels."""

    preprocessing = jaxood.Preprocessing(SIDE, SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    class_names = ("red", "blue")

    def __init__(self):
        self.kernel = nnx.Param(jnp.array([[1.5, -1.5], [0.0, 0.0], [-1.5, 1.5]]))

    @property
    def head(self):
        return jaxood.LinearHead(self.kernel[...], jnp.zeros(2))

    def __call__(self, images):
        cells = images.reshape(len(images), 4, SIDE // 4, 4, SIDE // 4, 3).mean(axis=(2, 4))
        return jaxood.model_outputs(self.head, cells.mean(axis=(1, 2)), cells)


class WithoutMap(Redness):
    def __call__(self, images):
        return super().__call__(images)._replace(feature_map=None)


def redness():
    return own_model(Redness(), "redness")


def picture(seed=0):
    """A red square on grey, upper left; noise all over."""
    image = np.random.default_rng(seed).integers(90, 150, (SIDE, SIDE, 3))
    image[2:8, 2:8] = (220, 40, 40)
    return image.astype(np.uint8)


def reds(count):
    """Of each picture, its red channel: a faithful map."""
    return np.stack([picture(seed)[..., 0].astype(np.float32) for seed in range(count)])
