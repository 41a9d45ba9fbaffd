"""The flow of an attribution run: each image is read once, for all methods.

image set -> uint8 batches -> device: normalise, predict, attribute, heat maps -> host
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt8

from jaxood.attribution.heatmap import heatmap, pixel_heatmap
from jaxood.attribution.registry import AttributionMethod
from jaxood.compiling import jit
from jaxood.data.images import ImageSet
from jaxood.models.blocked import forward
from jaxood.models.registry import LoadedModel
from jaxood.parallel import data_mesh, replicate, rounded_up, shard
from jaxood.preprocessing import Preprocessing


class Attributed(NamedTuple):
    """The decodable images of a batch.

    Attributes:
      indices: places in the image set.
      images: as they were cropped.
      target: the class that the maps explain.
      maps: by method.
      heats: by method, the map at the image's size, 0 to 255.
    """

    indices: Int[np.ndarray, " n"]
    images: UInt8[np.ndarray, "n H W 3"]
    probabilities: Float[np.ndarray, "n k"]
    target: Int[np.ndarray, " n"]
    maps: dict[str, Float[np.ndarray, "n h w"]]
    heats: dict[str, UInt8[np.ndarray, "n H W"]]


class _Static(NamedTuple):
    """What a compiled step is compiled for."""

    graphdef: nnx.GraphDef
    preprocessing: Preprocessing
    dtype: str
    mesh: Mesh

    def prepare(self, state, images):
        images = self.preprocessing.normalise(images, jnp.dtype(self.dtype))
        return nnx.merge(self.graphdef, state), images


@partial(jit, static_argnums=0)
def _predict(static: _Static, state, images: UInt8[Array, "n h w 3"]) -> Float[Array, "n k"]:
    model, normalised = static.prepare(state, images)
    return jax.nn.softmax(forward(model, normalised).logits.astype(jnp.float32))


@partial(jit, static_argnums=(0, 1, 2))
def _attribute(static: _Static, method: AttributionMethod, scale: str, state, images, target, key):
    """Each device works on its own images: no method needs those of another."""

    def on_device(state, images, target, key):
        model, normalised = static.prepare(state, images)
        maps = method(model, normalised, target, key)
        size = images.shape[1:3]
        heats = pixel_heatmap(maps) if maps.shape[1:] == size else heatmap(maps, size, scale)
        return maps, jnp.round(255 * heats).astype(jnp.uint8)

    specs = (P(), P("data"), P("data"), P())
    run = jax.shard_map(
        on_device, mesh=static.mesh, in_specs=specs, out_specs=P("data"), check_vma=False
    )
    return run(state, images, target, key)


def attribute(
    model: LoadedModel,
    images: ImageSet,
    methods: Mapping[str, AttributionMethod],
    *,
    target: int | None = None,
    scale: Literal["paper", "unit"] = "paper",
    batch_size: int = 32,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, Attributed]]:
    """Gives, batch by batch, how many images are done and what was found of the decodable ones.

    Args:
      target: class to explain; None: each image's top class.
      scale: contrast of the heat maps, see `jaxood.attribution.heatmap.heatmap`; that of maps of
        one value a pixel is fixed.
      batch_size: images a step over the whole mesh; rounded up to fill it.
      seed: of the draws, the same for every image.

    Raises:
      UsageError: when a method and the model do not go together; before an image is read.
    """
    mesh = mesh or data_mesh()
    batch_size = rounded_up(min(batch_size, len(images)), mesh)
    graphdef, state = nnx.split(model.module)
    static = _Static(graphdef, model.preprocessing, model.dtype, mesh)
    state, key = replicate((state, jax.random.key(seed)), mesh)
    side = model.preprocessing.crop
    shapes = (
        jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    for method in methods.values():
        jax.eval_shape(partial(_attribute.__wrapped__, static, method, scale), state, *shapes, key)

    def batches():
        for batch in images.batches(model.preprocessing, batch_size):
            on_device = shard(batch.images, mesh)
            probabilities = np.asarray(_predict(static, state, on_device))
            classes = probabilities.argmax(axis=1).astype(np.int32)
            if target is not None:
                classes = np.full_like(classes, target)
            found = {
                name: _attribute(static, method, scale, state, on_device, shard(classes, mesh), key)
                for name, method in methods.items()
            }
            found = {
                name: [own[batch.valid] for own in pair]
                for name, pair in jax.device_get(found).items()
            }
            yield (
                int(batch.indices.max()) + 1,
                Attributed(
                    batch.indices[batch.valid],
                    batch.images[batch.valid],
                    probabilities[batch.valid],
                    classes[batch.valid],
                    {name: maps for name, (maps, _) in found.items()},
                    {name: heats for name, (_, heats) in found.items()},
                ),
            )

    return batches()


def number_of_classes(model: LoadedModel) -> int:
    """How many the model's logits tell apart."""
    side = model.preprocessing.crop
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.dtype(model.dtype))
    return nnx.eval_shape(model.module, image).logits.shape[1]
