"""Contexts as the compiled step makes them, in one piece."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.context import Attribution, Context, Extractor
from jaxood.heads import Head
from jaxood.models.backbone import Backbone
from jaxood.outputs import model_outputs

KEY = jax.random.key(3)


def context_of(model, images, target, key=KEY, extractors: Sequence[Extractor] = ()) -> Context:
    """One forward pass, the stages that extractors ask for kept on the way."""
    if not isinstance(model, Backbone):
        return Context(images, model(images), model, target, key)
    wanted = {stage for one in extractors for stage in one.stages(model)}
    layers, activation, before = {}, images, None
    for name in sorted(wanted, key=model.stage_names.index):
        activation = layers[name] = model.run(activation, start=before, stop=name)
        before = name
    outputs = model.outputs(model.run(activation, start=before))
    return Context(images, outputs, model, target, key, model.pooling, layers)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(methods, graph, state, images, target, key):
    context = context_of(nnx.merge(graph, state), images, target, key, methods)
    return [method(context) for method in methods]


def compute_all(methods: Sequence[Attribution], model, images, target, key=KEY) -> list[np.ndarray]:
    """The maps of several attributions in one step."""
    inputs = jnp.asarray(images), jnp.asarray(target), key
    return jax.device_get(_compiled(tuple(methods), *nnx.split(model), *inputs))


def compute(method: Attribution, model, images, target, key=KEY) -> np.ndarray:
    return compute_all([method], model, images, target, key)[0]


class MapModel:
    """Its images are feature maps."""

    def __init__(self, head: Head):
        self.head = head

    def __call__(self, features):
        pooled = features.astype(jnp.float32).mean(axis=(1, 2))
        return model_outputs(self.head, pooled, features)


def context_of_map(features, head, key=KEY, pooling="mean") -> Context:
    """Of feature maps alone; the target is the top class."""
    model = MapModel(head)
    outputs = model(features)
    target = jnp.argmax(outputs.logits, axis=-1)
    images = jnp.zeros((len(features), 8, 8, 3))
    return Context(images, outputs, model, target, key, pooling)
