"""What is checked of a model of the user's own, once, before anything is computed with it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.compiling import jit
from jaxood.context import Pooling
from jaxood.errors import UsageError, require
from jaxood.heads import Head
from jaxood.models.backbone import Backbone
from jaxood.outputs import ModelOutputs
from jaxood.preprocessing import Preprocessing

IMAGES = 2
TOLERANCE = 1e-3  # of the largest value: pooling and head may be compiled otherwise


class ModelFacts(NamedTuple):
    """What methods may rely on.

    Attributes:
      pooling: "mean" where pooled features are the mean of the feature map over its positions.
      feature_map: height, width and channels; None where the model gives none.
      channels: of pooled features.
      classes: of the logits.
    """

    pooling: Pooling
    feature_map: tuple[int, int, int] | None
    channels: int
    classes: int


def check_model(module: object, preprocessing: Preprocessing) -> ModelFacts:
    """Runs a model once, on noise, and compares what it gives with what it must give.

    A feature map may be missing, and pooled features may be something else than its mean: methods
    that need them then refuse the model by name.

    Raises:
      UsageError: when the outputs are not ModelOutputs of the sizes that belong together, are not
        finite, or when the logits are not what the head makes of the pooled features.
    """
    head = getattr(module, "head", None)
    if not isinstance(module, nnx.Module) or not callable(module) or not isinstance(head, Head):
        wanted = "a flax.nnx.Module with __call__(images) and head, as jaxood.LinearHead"
        raise UsageError("model", f"{type(module).__name__}, head {type(head).__name__}", wanted)
    side = preprocessing.crop
    images = np.random.default_rng(0).standard_normal((IMAGES, side, side, 3), np.float32)
    graphdef, state = nnx.split(module)

    def run(state, images):
        model = nnx.merge(graphdef, state)
        outputs = model(images)
        if not isinstance(outputs, ModelOutputs):
            wanted = "jaxood.ModelOutputs, as jaxood.model_outputs makes them"
            raise UsageError("model", f"a model that returns {type(outputs).__name__}", wanted)
        require(
            outputs.pooled.ndim == 2 and len(outputs.pooled) == IMAGES,
            "model",
            f"pooled features {outputs.pooled.shape} of {IMAGES} images",
            f"({IMAGES}, channels)",
        )
        pooled = jnp.asarray(outputs.pooled, jnp.float32)
        return outputs, (model.head.penultimate(pooled), model.head(pooled))

    outputs, (penultimate, logits) = jax.device_get(jit(run)(state, jnp.asarray(images)))
    for name, found, wanted in (
        ("penultimate features", outputs.penultimate, penultimate),
        ("logits", outputs.logits, logits),
    ):
        require(
            found.shape == wanted.shape,
            "model",
            f"{name} {found.shape}",
            f"{wanted.shape}, as the head makes them of the pooled features",
        )
        require(bool(np.isfinite(found).all()), "model", f"{name} that are not finite", "numbers")
        require(
            _close(found, wanted),
            "model",
            f"{name} that the head does not make of the pooled features",
            "logits == head(pooled)",
            "Return jaxood.model_outputs(self.head, pooled, feature_map)",
        )
    features = outputs.feature_map
    if features is not None:
        require(
            features.ndim == 4 and len(features) == IMAGES,
            "model",
            f"a feature map {features.shape} of {IMAGES} images",
            f"({IMAGES}, height, width, channels), or None",
        )
        require(bool(np.isfinite(features).all()), "model", "a feature map not finite", "numbers")
    pooling: Pooling = "other"
    if isinstance(module, Backbone):
        pooling = module.pooling
    elif features is not None and features.shape[-1] == outputs.pooled.shape[1]:
        mean = np.asarray(features, np.float64).mean(axis=(1, 2))
        pooling = "mean" if _close(outputs.pooled, mean) else "other"
    shape = None if features is None else tuple(features.shape[1:])
    return ModelFacts(pooling, shape, outputs.pooled.shape[1], outputs.logits.shape[1])


def _close(found: np.ndarray, wanted: np.ndarray) -> bool:
    scale = max(float(np.abs(wanted).max()), 1e-30)
    return bool(np.abs(np.asarray(found, np.float64) - wanted).max() <= TOLERANCE * scale)
