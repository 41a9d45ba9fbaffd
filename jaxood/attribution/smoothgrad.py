"""SmoothGrad: the mean of a gradient map over noisy copies of the image (Smilkov et al. 2017).

    values = mean over samples of values(x + noise * (max x - min x) * z),  z standard normal

then joined over the colours as the map itself: `smoothgrad[of=saliency]` is the largest absolute
*mean* gradient over the colours, as in the paper, and as captum's NoiseTunnel of a Saliency that
keeps the sign (its default takes absolute values before the mean).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxood.attribution.guided import GuidedBackprop
from jaxood.attribution.integrated_gradients import IntegratedGradients
from jaxood.attribution.pixel_gradients import (
    Images,
    InputXGradient,
    PixelGradient,
    Saliency,
    Target,
)
from jaxood.context import Model
from jaxood.errors import require
from jaxood.spelling import build, class_of, read

MAPS: dict[str, type[PixelGradient]] = {
    kind.name: kind for kind in (Saliency, InputXGradient, IntegratedGradients, GuidedBackprop)
}
MOST_SAMPLES = 1000


@dataclass(frozen=True)
class SmoothGrad(PixelGradient):
    """A gradient map's mean over noisy copies of the image.

    The noise is drawn once and added to every image, so a map does not depend on its batch.

    Attributes:
      of: the map, by its name, with parameters or without: "integrated-gradients[steps=20]".
      samples: noisy copies of an image.
      noise: standard deviation, as a share of the image's range of values.
    """

    name: ClassVar[str] = "smoothgrad"
    paper: ClassVar[str] = "Smilkov et al. 2017"
    random: ClassVar[bool] = True

    of: str | PixelGradient = "saliency"
    samples: int = 50
    noise: float = 0.15

    def __post_init__(self):
        wanted = f"1 to {MOST_SAMPLES}"
        require(1 <= self.samples <= MOST_SAMPLES, f"{self.name}.samples", self.samples, wanted)
        require(0 <= self.noise < math.inf, f"{self.name}.noise", self.noise, "0 or more")
        self.smoothed  # noqa: B018 (a name that is wrong is said now)

    @property
    def smoothed(self) -> PixelGradient:
        """The map that is made smooth."""
        if isinstance(self.of, PixelGradient):
            return self.of
        name, values = read(self.of, f"{self.name}.of")
        return build(name, class_of(name, MAPS, PixelGradient, f"{self.name}.of"), values)

    def identity(self) -> str:
        effective = self.smoothed.identity(), self.samples, self.noise, self.version
        return " ".join(map(str, (self.name, *effective)))

    def by_colour(
        self, model: Model, images: Images, target: Target, key: PRNGKeyArray
    ) -> Float[Array, "n h w 3"]:
        whole = tuple(range(1, images.ndim))
        spread = images.max(axis=whole, keepdims=True) - images.min(axis=whole, keepdims=True)

        def add_sample(total: Array, key: PRNGKeyArray) -> tuple[Array, None]:
            drawn = jax.random.normal(key, images.shape[1:], images.dtype)
            noisy = images + self.noise * spread * drawn[None]
            return total + self.smoothed.by_colour(model, noisy, target, key), None

        zero = jnp.zeros(images.shape, jnp.float32)
        total, _ = jax.lax.scan(add_sample, zero, jax.random.split(key, self.samples))
        return total / self.samples

    def join(self, values: Float[Array, "n h w 3"]) -> Float[Array, "n h w"]:
        return self.smoothed.join(values)
