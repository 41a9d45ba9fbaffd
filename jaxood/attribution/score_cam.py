"""Score-CAM: a channel weighs what the image scores when seen through it (Wang et al., CVPRW 2020).

    map = relu(sum_c w_c A_c),  w = softmax over c of logit(image * M_c)
    M_c = A_c scaled to [0, 1] over positions, then enlarged to the image

A is the layer's map. The paper subtracts the logit of a baseline image, which the softmax
cancels. Masks as in torchcam 0.5: scaled first, then enlarged bilinearly without aligned
corners; the package grad-cam enlarges first, with aligned corners.

A channel that is constant over the positions (after a ReLU: dead) has the mask 0. All of these
share one forward pass of an empty image, so that only the live channels cost one each.

Memory: `chunk` images and their activations at a time, whatever the batch and the channels.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.gradient_cam import weighted_map
from jaxood.attribution.gradients import activation_map, target_logits
from jaxood.attribution.heatmap import unit_scale, upsample
from jaxood.context import Attribution, Context


@dataclass(frozen=True)
class ScoreCAM(Attribution):
    """Attributes:
    layer: None for the model's choice.
    chunk: masked images that go forward together; None: 8 on a CPU, for its cache, else 128.
    """

    name: ClassVar[str] = "score-cam"
    paper: ClassVar[str] = "Wang et al., CVPRW 2020"
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    chunk: int | None = None

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        model, images, target = context.model, context.images, context.target
        a = activation_map(context.at(self.layer))
        n, h, w, c = a.shape
        size = images.shape[1], images.shape[2]
        masks = unit_scale(jnp.moveaxis(a, -1, 1).reshape(n * c, h, w))
        alive = masks.max(axis=(1, 2)) > 0
        live_first = jnp.argsort(~alive)  # stable
        chunk = min(self.chunk or (8 if jax.default_backend() == "cpu" else 128), n * c)
        chunks = -(-alive.sum() // chunk)
        empty = model(jnp.zeros_like(images[:1])).logits[0, target].astype(jnp.float32)

        def score_chunk(number: Int[Array, ""], scores: Float[Array, " nc"]) -> Float[Array, " nc"]:
            # The last chunk fills up with dead channels, or starts earlier where there are none.
            pairs = jax.lax.dynamic_slice_in_dim(live_first, number * chunk, chunk)
            enlarged = upsample(masks[pairs], size, "bilinear", align_corners=False)
            masked = images[pairs // c] * enlarged[..., None].astype(images.dtype)
            return scores.at[pairs].set(target_logits(model(masked).logits, target[pairs // c]))

        scores = jax.lax.fori_loop(0, chunks, score_chunk, jnp.repeat(empty, c))
        weights = jax.nn.softmax(scores.reshape(n, c), axis=-1)
        return weighted_map(a, weights[:, None, None])
