"""Occlusion: how much of the logit goes with each window of the image (Zeiler & Fergus, ECCV 2014).

    map_x = mean over the windows W that cover pixel x of  logit(image) - logit(image without W)

as captum's Occlusion with windows over all colours; the paper watches the class's probability.
Windows start every `stride` pixels, the last ones cut off by the image's edge. One forward pass a
window: 169 for 224 x 224 pixels with the defaults.

Memory: `chunk` images and their activations at a time, whatever the batch and the windows.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxood.attribution.gradients import target_logits
from jaxood.attribution.masked import images_a_batch, stream
from jaxood.context import Attribution, Context
from jaxood.errors import require


def covered(size: int, window: int, stride: int) -> Bool[np.ndarray, "windows size"]:
    """The pixels of an axis that each window covers."""
    starts = stride * np.arange(1 + -(-(size - window) // stride))[:, None]
    pixels = np.arange(size)[None]
    return (starts <= pixels) & (pixels < starts + window)


@dataclass(frozen=True)
class Occlusion(Attribution):
    """What the logit loses when a window slides over the image.

    Attributes:
      window: its side in pixels; None: a seventh of the image's shorter side.
      stride: pixels from one window to the next, at most a window; None: half a window.
      baseline: what the window shows, in normalised pixels; 0: the mean colour.
      chunk: occluded images that go forward together; None: few on a CPU, for its cache, else 128.
    """

    name: ClassVar[str] = "occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus, ECCV 2014"

    window: int | None = None
    stride: int | None = None
    baseline: float = 0.0
    chunk: int | None = None

    def __post_init__(self):
        for name in ("window", "stride", "chunk"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{self.name}.{name}", value, "1 or more")
        finite = math.isfinite(self.baseline)
        require(finite, f"{self.name}.baseline", self.baseline, "a finite number")

    def windows(self, height: int, width: int) -> tuple[int, int]:
        """Side and stride for images of a size.

        Raises:
          UsageError: for a window that is larger than the image, or a stride larger than a window.
        """
        shorter = min(height, width)
        window = max(1, shorter // 7) if self.window is None else self.window
        require(window <= shorter, f"{self.name}.window", window, f"at most {shorter} pixels")
        stride = -(-window // 2) if self.stride is None else self.stride
        wanted = f"at most the window's {window} pixels"
        require(stride <= window, f"{self.name}.stride", stride, wanted)
        return window, stride

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        images, target = context.images, context.target
        n, height, width, _ = images.shape
        window, stride = self.windows(height, width)
        rows, columns = (jnp.asarray(covered(size, window, stride)) for size in (height, width))
        across = len(columns)
        each = len(rows) * across

        def score(pairs: Int[Array, " b"]) -> Float[Array, " b"]:
            image, place = pairs // each, pairs % each
            inside = rows[place // across][:, :, None] & columns[place % across][:, None, :]
            fill = jnp.asarray(self.baseline, images.dtype)
            occluded = jnp.where(inside[..., None], fill, images[image])
            return target_logits(context.model(occluded).logits, target[image])

        chunk = self.chunk or images_a_batch(images)
        without = stream(score, jnp.zeros(n * each, jnp.float32), chunk)
        full = target_logits(context.outputs.logits, target)
        lost = full[:, None, None] - without.reshape(n, len(rows), across)
        rows, columns = rows.astype(jnp.float32), columns.astype(jnp.float32)
        total = jnp.einsum("nab,ah,bw->nhw", lost, rows, columns, precision="highest")
        return total / (rows.sum(axis=0)[:, None] * columns.sum(axis=0)[None])[None]
