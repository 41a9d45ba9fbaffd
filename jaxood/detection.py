"""From a method to yes or no for each image: calibrate it, use it, export it.

The threshold is the highest one that a chosen share (the true positive rate, TPR) of
in-distribution images reaches. They should not be images that the detector was fitted on.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.data.images import ImageSet
from jaxood.data.suites import Suite
from jaxood.detectors.methods import Method
from jaxood.detectors.saved import SavedDetector, model_identity
from jaxood.errors import UsageError
from jaxood.evaluation.metrics import threshold_at
from jaxood.models.registry import LoadedModel
from jaxood.outputs import ModelOutputs
from jaxood.parallel import data_mesh, replicate, rounded_up
from jaxood.pipeline import (
    Progress,
    bank_indices,
    extract,
    fit_outputs,
    forward_and_extract,
    score,
    stream,
)
from jaxood.store import Features


class Verdict(NamedTuple):
    """What is said of one image.

    Attributes:
      place: of the image in its set.
      label: index of the most probable class.
      probability: softmax of that class.
    """

    place: int
    label: int
    probability: float
    score: float
    in_distribution: bool


def calibrate(
    model: LoadedModel,
    suite: Suite,
    method: Method,
    tpr: float = 0.95,
    *,
    classes: tuple[str, ...] = (),
    batch_size: int = 32,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    seed: int = 0,
    progress: Callable[[str], Progress] | None = None,
) -> tuple[SavedDetector, np.ndarray]:
    """Fits a method on a suite's training split and sets its threshold on the test split.

    Returns:
      The detector, and the scores of the test split.

    Raises:
      UsageError: when the suite lacks what the method needs.
    """
    mesh, head = data_mesh(), model.module.head

    def features_of(name: str, images: ImageSet) -> Features:
        return extract(
            model,
            images,
            method.extractors,
            batch_size=batch_size,
            mesh=mesh,
            progress=progress(name) if progress else None,
        )

    outputs = labels = bank = None
    if method.needs_train:
        bank = bank_indices(suite, [method], bank_fraction, seed, balanced_bank)
        train = suite.train.subset(bank)
        features = features_of("train", train)
        outputs = fit_outputs(features)
        labels = None if train.labels is None else train.labels[features.indices]
        bank = bank[features.indices]
    state = method.fit(outputs, labels, head)
    known = score(method, state, features_of(suite.id_test.name, suite.id_test), head, mesh)
    threshold = threshold_at(known, tpr)
    return SavedDetector(method, state, threshold, tpr, model_identity(model), classes, bank), known


def detect(
    model: LoadedModel, detector: SavedDetector, images: ImageSet, batch_size: int = 32
) -> Iterator[tuple[list[Verdict], dict[str, str]]]:
    """Yields, as batches finish, the verdicts and the reason by id of images left out.

    Raises:
      UsageError: when the detector was fitted with another model.
    """
    detector.require_model(model)
    mesh = data_mesh()
    rows = rounded_up(min(batch_size, len(images)), mesh)
    method, head = detector.method, model.module.head
    state = replicate(detector.state, mesh)
    batches = stream(model, images, method.extractors, batch_size=batch_size, mesh=mesh)
    for _, features in batches:
        verdicts = []
        if len(features):
            # One shape whatever could be decoded, so that it compiles once.
            whole = jax.tree.map(
                lambda array: np.resize(array, (rows, *array.shape[1:])),
                Features(*features[:4], skipped={}),
            )
            scores = score(method, state, whole, head, mesh)[: len(features)]
            probabilities = np.asarray(jax.nn.softmax(features.logits, axis=-1))
            verdicts = [
                Verdict(int(place), int(label), float(own[label]), float(value), bool(known))
                for place, own, label, value, known in zip(
                    features.indices,
                    probabilities,
                    features.logits.argmax(axis=1),
                    scores,
                    scores >= detector.threshold,
                    strict=True,
                )
            ]
        yield verdicts, features.skipped


def export(
    model: LoadedModel,
    detector: SavedDetector,
    batch_size: int,
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """Model, method and threshold as one compiled function that runs with jax alone.

    `jax.export.deserialize(content).call(images)`, with uint8 images [batch_size, h, w, 3] that
    were resized and cropped as the model wants, gives a dict: "logits", "score" and
    "in_distribution".

    Raises:
      UsageError: when the bank does not lie in the memory of one device.
    """
    memory = getattr(detector.method.detector, "memory", "device")
    if memory != "device":
        raise UsageError("--export", f"memory={memory}", "a bank with memory=device")
    method, head = detector.method, model.module.head
    graphdef, weights = nnx.split(model.module)
    extractors = tuple(method.extractors.items())
    forward = partial(
        forward_and_extract.__wrapped__,
        graphdef,
        model.preprocessing,
        model.dtype,
        extractors,
        weights,
    )

    def scorer(images):
        pooled, logits, extras = forward(images)
        scores = method.score(detector.state, ModelOutputs(None, pooled, logits, extras), head)
        return {
            "logits": logits,
            "score": scores,
            "in_distribution": scores >= jnp.float32(detector.threshold),
        }

    side = model.preprocessing.crop
    images = jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8)
    return jax.export.export(jax.jit(scorer), platforms=platforms)(images).serialize()
