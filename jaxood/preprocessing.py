"""From a uint8 image to what a model takes: a value that a weight tag carries."""

from dataclasses import asdict, dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxood.errors import UsageError, choose

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize`, cut the central `crop` square, normalise.

    Attributes:
      resize: pixels of the shorter side after resizing.
      crop: pixels of the side of the central square; at most `resize`.
      interpolation: PIL's filter of that name, antialiased, on uint8 values.
      mean, std: per RGB channel, of values in [0, 1].
    """

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self):
        if not 1 <= self.crop <= self.resize:
            raise UsageError("preprocessing", f"crop {self.crop}", f"1 to resize, {self.resize}")
        choose("interpolation", self.interpolation, ("bilinear", "bicubic"))

    def normalise(
        self, images: UInt8[Array, "n h w 3"], dtype=jnp.float32
    ) -> Float[Array, "n h w 3"]:
        """`(images / 255 - mean) / std`, on the device, in `dtype`."""
        scale = 1.0 / (255.0 * jnp.asarray(self.std, jnp.float32))
        shift = -jnp.asarray(self.mean, jnp.float32) / jnp.asarray(self.std, jnp.float32)
        values = images.astype(jnp.float32) * scale[None, None, None] + shift[None, None, None]
        return values.astype(dtype)

    def as_dict(self) -> dict:
        """Plain JSON values, for weights files, manifests and fingerprints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Preprocessing":
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
