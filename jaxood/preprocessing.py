"""From a uint8 image to what a model takes: a value that a weight tag carries."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from jaxood.errors import UsageError, choose, require

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
        for name in ("resize", "crop"):
            value = getattr(self, name)
            require(type(value) is int, "preprocessing", f"{name} {value!r}", "a whole number")
        if not 1 <= self.crop <= self.resize:
            raise UsageError("preprocessing", f"crop {self.crop}", f"1 to resize, {self.resize}")
        choose("interpolation", self.interpolation, ("bilinear", "bicubic"))
        for name in ("mean", "std"):
            values = getattr(self, name)
            numbers = isinstance(values, tuple) and all(type(v) in (int, float) for v in values)
            three = numbers and len(values) == 3 and all(map(math.isfinite, values))
            require(three, "preprocessing", f"{name} {values!r}", "three finite numbers")
        require(min(self.std) > 0, "preprocessing", f"std {self.std}", "three numbers above 0")

    def normalise(
        self, images: UInt8[Array, "n h w 3"], dtype: DTypeLike = jnp.float32
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
    def from_dict(cls, values: Mapping) -> "Preprocessing":
        """What `as_dict` gave, from JSON.

        Raises:
          UsageError: for anything else.
        """
        try:
            channels = {name: tuple(values[name]) for name in ("mean", "std")}
            return cls(**{**values, **channels})
        except (TypeError, KeyError):
            wanted = "resize, crop, interpolation, mean and std"
            raise UsageError("preprocessing", repr(values)[:200], wanted) from None

    @classmethod
    def from_timm(cls, config: Mapping) -> "Preprocessing":
        """What timm keeps beside weights as `config.json`: as it evaluates them.

        Raises:
          UsageError: where something is missing, or images are not square or cropped otherwise.
        """
        values = config.get("pretrained_cfg", config)
        try:
            _, height, width = values["input_size"]
            mode = values.get("crop_mode", "center")
            wanted = "square images, of which the centre is cut out"
            got = f"{height} x {width} pixels, crop mode {mode}"
            require(height == width and mode == "center", "preprocessing", got, wanted)
            numbers = {name: tuple(values[name]) for name in ("mean", "std")}
            share, interpolation = values["crop_pct"], values["interpolation"]
            return cls(math.floor(height / share), height, interpolation, **numbers)
        except (TypeError, KeyError, AttributeError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, UsageError):
                raise
            wanted = "input_size, crop_pct, interpolation, mean and std"
            raise UsageError("preprocessing", repr(values)[:200], wanted) from None
