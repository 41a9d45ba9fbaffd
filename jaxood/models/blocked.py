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
from typing import TypeVar

import jax
from jaxtyping import Array, Float

from jaxood.compiling import images_a_step, in_steps
from jaxood.context import LayerExtractor, Model, as_map, layers_of
from jaxood.models.backbone import Backbone
from jaxood.outputs import ModelOutputs

LARGE = 28 * 28  # places of a map, each of which has all channels

Tree = TypeVar("Tree")
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
    if not isinstance(model, Backbone):
        return model(images), {}, {}
    whole = partial(_with_layers, model, stages=stages, over_layers=over_layers)
    return stepwise(model, whole, (images,), images.shape[1:3])


def stepwise(
    model: Model, function: Callable[..., Tree], rows: tuple[Array, ...], size: tuple[int, ...]
) -> Tree:
    """`function(*rows)`, which runs the model, in such steps: what it makes stays in a cache.

    Args:
      function: a row of its result depends on the same row of `rows` only.
      size: rows and columns of the images that it gives to the model.
    """
    if not isinstance(model, Backbone):
        return function(*rows)
    return in_steps(function, rows, model.together * images_a_step(*size))


def _large(model: Backbone, images: Array) -> int:
    """How many stages, of the first, are given maps of `LARGE` places or more."""
    activation, before = jax.eval_shape(lambda x: x, images), None
    for count, name in enumerate(model.stage_names):
        if len(activation.shape) != 4 or math.prod(activation.shape[1:3]) < LARGE:
            return count
        run = partial(model.run, start=before, stop=name)
        activation, before = jax.eval_shape(run, activation), name
    return len(model.stage_names)


def _with_layers(
    model: Backbone, images, stages: Sequence[str], over_layers: Sequence[LayerExtractor]
) -> tuple[ModelOutputs, Layers, Layers]:
    """The outputs, what the stages gave on the way, and what extractors make of that."""
    read = {name for one in over_layers for name in layers_of(model, one.layers)}
    count = _large(model, images)

    def run_large(images) -> tuple[Array, Layers]:
        activation, before, kept = images, None, {}
        for name in model.stage_names[:count]:
            activation, before = model.run(activation, start=before, stop=name), name
            if name in read or name in stages:
                kept[name] = activation
        return activation, kept

    activation, passed = in_steps(run_large, (images,), 1) if count else run_large(images)
    before = model.stage_names[count - 1] if count else None
    for name in model.stage_names[count:]:
        activation = model.run(activation, start=before, stop=name)
        if name in read:  # once, not again for each that reads it
            activation = jax.lax.optimization_barrier(activation)
        passed[name], before = activation, name
    reduced = {
        one.key: one.reduce([as_map(model, passed[name]) for name in layers_of(model, one.layers)])
        for one in over_layers
    }
    return model.outputs(activation), {name: passed[name] for name in stages}, reduced
