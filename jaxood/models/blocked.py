"""A forward pass whose activations stay in a CPU's cache: a few images at a time.

A batch of 16 at 224 x 224 leaves 50 MB behind after each of the first layers, which goes through
memory, page by page, and comes back. The first stages, of large maps and few weights, take one
image at a time; the others, of small maps and many weights, four, which read the weights once.
Beside two images a step throughout MobileNetV2 takes 0.86 of the time, ResNet-50 0.93, Swin-T 0.96,
ViT-B/16, which has no maps, as long (two cores, two programs at once: `jaxood.lanes`). A network
may say otherwise (`Backbone.together`). An accelerator has the bandwidth, and wants the whole
batch.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
from jaxtyping import Array, Float, Shaped

from jaxood.compiling import images_a_step, in_steps
from jaxood.context import LayerExtractor, Model, as_map, layers_of
from jaxood.models.backbone import Backbone
from jaxood.outputs import ModelOutputs

LARGE = 28 * 28  # places of a map, each of which has all channels

Layers = dict[str, Float[Array, "n ..."]]


def forward(
    model: Model,
    images: Float[Array, "n h w 3"],
    stages: Sequence[str] = (),
    over_layers: Sequence[LayerExtractor] = (),
) -> tuple[ModelOutputs, Layers, Layers]:
    """`model(images)` on one device, in steps over the batch where it is compiled for a CPU.

    A model of the user's own goes in one step: it may depend on the batch.

    Args:
      stages: of a model with named stages, whose activations are kept as well.
      over_layers: what is kept of activations, by its keys, in the place of these.
    """
    return forward_of(model, lambda image: image, (images,), stages, over_layers)


def forward_of(
    model: Model,
    image: Callable[..., Float[Array, "h w 3"]],
    rows: tuple[Shaped[Array, "n ..."], ...],
    stages: Sequence[str] = (),
    over_layers: Sequence[LayerExtractor] = (),
) -> tuple[ModelOutputs, Layers, Layers]:
    """`forward` of images that are made when they are needed, each `image` of a row."""
    if not isinstance(model, Backbone):
        return model(jax.vmap(image)(*rows)), {}, {}
    read = {name for one in over_layers for name in layers_of(model, one.layers)}
    made = jax.eval_shape(jax.vmap(image), *rows)
    count, step = _large(model, made), model.together * images_a_step(*made.shape[1:3])

    def large(images, in_bands: bool = False) -> tuple[Array, Layers]:
        activation, before, kept = images, None, {}
        for name in model.stage_names[:count]:
            activation, before = model.run(activation, before, name, in_bands), name
            if name in read or name in stages:
                kept[name] = activation
        return activation, kept

    def rest(passed: tuple[Array, Layers]) -> tuple[ModelOutputs, Layers, Layers]:
        """The outputs, what the stages gave on the way, and what extractors make of that."""
        activation, kept = passed[0], dict(passed[1])
        before = model.stage_names[count - 1] if count else None
        for name in model.stage_names[count:]:
            activation = model.run(activation, start=before, stop=name)
            if name in read:  # once, not again for each that reads it
                activation = jax.lax.optimization_barrier(activation)
            kept[name], before = activation, name
        reduced = {
            one.key: one.reduce(
                [as_map(model, kept[name]) for name in layers_of(model, one.layers)]
            )
            for one in over_layers
        }
        return model.outputs(activation), {name: kept[name] for name in stages}, reduced

    def large_of(*row):
        return jax.tree.map(lambda array: array[0], large(image(*row)[None], True))

    def whole(*rows):
        return rest(large(jax.vmap(image)(*rows)))

    outputs, layers, reduced = in_steps(whole, rows, step, (large_of, rest) if count else None)
    # Of the whole batch: a classifier of 5 MB is read once, not in every step.
    outputs = outputs._replace(logits=model.head.classify(outputs.penultimate))
    return outputs, layers, reduced


def _large(model: Backbone, images: jax.ShapeDtypeStruct) -> int:
    """How many stages, of the first, are given maps of `LARGE` places or more."""
    activation, before = images, None
    for count, name in enumerate(model.stage_names):
        if len(activation.shape) != 4 or math.prod(activation.shape[1:3]) < LARGE:
            return count
        run = partial(model.run, start=before, stop=name)
        activation, before = jax.eval_shape(run, activation), name
    return len(model.stage_names)
