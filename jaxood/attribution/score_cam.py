"""Score-CAM and its kin: a channel weighs what the image scores when seen through it.

    map = relu(sum_c w_c A_c),  w = softmax over c of mean_i logit(image * factor_i(M_c))
    M_c = A_c scaled to [0, 1] over positions, then enlarged to the image

| name      | factors of a mask M                         | source                        |
| --------- | ------------------------------------------- | ----------------------------- |
| score-cam | M                                           | Wang et al., CVPRW 2020       |
| ss-cam    | M + noise z_i, z standard normal, i = 1...N | Wang et al. 2020 (smoothed)   |
| is-cam    | M (1 + 2 + ... + i) / N, i = 1...N          | Naidu et al. 2020 (integrated)|

A is the layer's map. The papers subtract the logit of a baseline image, which the softmax
cancels. Masks as in torchcam 0.5: scaled first, then enlarged bilinearly without aligned
corners; the package grad-cam enlarges first, with aligned corners.

SS-CAM is the paper's first form, noise on the mask and not on the image. The noise of a sample is
drawn once, the same for all channels and images, so that channels differ by their masks alone
(torchcam draws it for each). IS-CAM's factors grow beyond one, as the paper's sums do; they are
torchcam's, whose code the paper's author has seen, where the paper's sum ends one term earlier.

A channel that is constant over the positions (after a ReLU: dead) has the mask 0. All of these
share one forward pass an image and factor, so that only the live channels cost one each.

Memory: `chunk` images and their activations at a time, whatever the batch and the channels.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.gradient_cam import weighted_map
from jaxood.attribution.gradients import activation_map, target_logits
from jaxood.attribution.heatmap import unit_scale, upsample
from jaxood.attribution.masked import images_a_batch, stream
from jaxood.context import Attribution, Context
from jaxood.errors import require

MOST_SAMPLES = 1000
Masks = Float[Array, "b h w"]


@dataclass(frozen=True)
class MaskedCAM(Attribution):
    """Attributes:
    layer: None for the model's choice.
    chunk: masked images that go forward together; None: few on a CPU, for its cache, else 128.
    """

    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    chunk: int | None = None

    @property
    def samples_a_channel(self) -> int:
        return 1

    @abstractmethod
    def factor(self, masks: Masks, sample: Int[Array, ""], key: PRNGKeyArray) -> Masks:
        """What the image is multiplied with, by masks of its size."""

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        a = activation_map(context.at(self.layer))
        n, _, _, c = a.shape
        score = channel_scores(context, a, self.factor, self.chunk)
        zero = jnp.zeros(n * c, jnp.float32)
        total = jax.lax.fori_loop(
            0, self.samples_a_channel, lambda sample, total: total + score(sample), zero
        )
        weights = jax.nn.softmax(total.reshape(n, c) / self.samples_a_channel, axis=-1)
        return weighted_map(a, weights[:, None, None])


def channel_scores(
    context: Context,
    a: Float[Array, "n h w c"],
    factor: Callable[[Masks, Int[Array, ""], PRNGKeyArray], Masks],
    chunk: int | None,
) -> Callable[[Int[Array, ""]], Float[Array, " nc"]]:
    """From a sample's number to the target's logit of each image through each channel."""
    images, target = context.images, context.target
    n, h, w, c = a.shape
    size = images.shape[1], images.shape[2]
    masks = unit_scale(jnp.moveaxis(a, -1, 1).reshape(n * c, h, w))
    alive = masks.max(axis=(1, 2)) > 0
    live_first = jnp.argsort(~alive)  # stable

    def through(
        enlarged: Masks, rows: Int[Array, " b"], sample: Int[Array, ""]
    ) -> Float[Array, " b"]:
        seen = factor(enlarged, sample, context.key)[..., None].astype(images.dtype)
        return target_logits(context.model(images[rows] * seen).logits, target[rows])

    def scores(sample: Int[Array, ""]) -> Float[Array, " nc"]:
        def score(pairs: Int[Array, " b"]) -> Float[Array, " b"]:
            enlarged = upsample(masks[pairs], size, "bilinear", align_corners=False)
            return through(enlarged, pairs // c, sample)

        dead = through(jnp.zeros((n, *size)), jnp.arange(n), sample)
        size_of_batch = chunk or images_a_batch(images)
        return stream(score, jnp.repeat(dead, c), size_of_batch, live_first, alive.sum())

    return scores


@dataclass(frozen=True)
class ScoreCAM(MaskedCAM):
    """The image seen through each channel.

    Attributes:
      layer: None for the model's choice.
      chunk: masked images that go forward together; None: few on a CPU, for its cache, else 128.
    """

    name: ClassVar[str] = "score-cam"
    paper: ClassVar[str] = "Wang et al., CVPRW 2020"

    def factor(self, masks: Masks, sample: Int[Array, ""], key: PRNGKeyArray) -> Masks:
        return masks


@dataclass(frozen=True)
class SmoothedScoreCAM(MaskedCAM):
    """Score-CAM with the mean over masks with noise.

    Attributes:
      layer: None for the model's choice.
      chunk: masked images that go forward together; None: few on a CPU, for its cache, else 128.
      samples: noisy masks of a channel; each costs as much as Score-CAM.
      noise: standard deviation, where a mask goes from 0 to 1.
    """

    name: ClassVar[str] = "ss-cam"
    paper: ClassVar[str] = "Wang et al., SS-CAM, 2020"
    random: ClassVar[bool] = True

    samples: int = 10
    noise: float = 2.0

    def __post_init__(self):
        require_samples(self.name, self.samples)
        require(0 <= self.noise < math.inf, f"{self.name}.noise", self.noise, "0 or more")

    @property
    def samples_a_channel(self) -> int:
        return self.samples

    def factor(self, masks: Masks, sample: Int[Array, ""], key: PRNGKeyArray) -> Masks:
        drawn = jax.random.normal(jax.random.fold_in(key, sample), masks.shape[1:])
        return masks + self.noise * drawn[None]


@dataclass(frozen=True)
class IntegratedScoreCAM(MaskedCAM):
    """Score-CAM with the mean over masks that grow.

    Attributes:
      layer: None for the model's choice.
      chunk: masked images that go forward together; None: few on a CPU, for its cache, else 128.
      samples: masks of a channel; each costs as much as Score-CAM.
    """

    name: ClassVar[str] = "is-cam"
    paper: ClassVar[str] = "Naidu et al., IS-CAM, 2020"

    samples: int = 10

    def __post_init__(self):
        require_samples(self.name, self.samples)

    @property
    def samples_a_channel(self) -> int:
        return self.samples

    def factor(self, masks: Masks, sample: Int[Array, ""], key: PRNGKeyArray) -> Masks:
        size = (sample + 1) * (sample + 2) / (2 * self.samples)
        return masks * size


def require_samples(name: str, samples: int) -> None:
    wanted = f"1 to {MOST_SAMPLES}"
    require(1 <= samples <= MOST_SAMPLES, f"{name}.samples", samples, wanted)
