"""An image together with the maps that are tested on it."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxood.errors import UsageError

RANDOM = "random"

Map = Float[np.ndarray, "h w"]


def image_number(image_id: str) -> int:
    """What keys the draws of an image, whatever folder, set and batch it comes in."""
    return zlib.crc32(image_id.rpartition("/")[2].encode())


def require_map(image_id: str, size: tuple[int, ...], method: str, given: np.ndarray) -> None:
    """Raises UsageError for a map that is not finite or not of the image's size."""
    if given.shape != size:
        raise UsageError(f"map {method} of {image_id}", given.shape, f"{size}, the image's size")
    if not np.isfinite(given).all():
        raise UsageError(f"map {method} of {image_id}", "nan or inf", "finite values")


@dataclass(frozen=True, eq=False)
class Subject:
    """An image with its maps.

    Attributes:
      target: class whose probability is followed.
      maps: by method, of the image's size, higher means more relevant.
      region: where the object is that the image shows; None where nobody has said.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    target: int
    maps: Mapping[str, Map]
    region: Bool[np.ndarray, "h w"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def rng(self, seed: int, *purpose: int) -> np.random.Generator:
        """Draws that depend on the seed, the image's name and the purpose, on nothing else."""
        return np.random.default_rng([seed, image_number(self.id), *purpose])
