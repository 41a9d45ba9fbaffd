"""A model with a fitted method and a threshold: yes or no for each image."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.compiling import jit
from jaxood.context import Extractor
from jaxood.data.decode import UndecodableImage
from jaxood.data.images import check_pictures, prepared
from jaxood.data.shares import own_share, require_same_images
from jaxood.data.sources import image_set
from jaxood.detectors.contract import Step
from jaxood.detectors.saved import SavedDetector, save_detector
from jaxood.detectors.saved import load_detector as read_detector
from jaxood.detectors.scoring import host_outputs, score_rows
from jaxood.errors import UsageError, require
from jaxood.files import fingerprint
from jaxood.flows.scorer import write_scorer
from jaxood.flows.sources import ModelSource, load_model
from jaxood.models.layers import with_kernels_laid_out
from jaxood.models.registry import LoadedModel
from jaxood.outputs import ModelOutputs
from jaxood.processes import gathered_values, require_agreed, share_of
from jaxood.runner.batch_size import AUTO, DEFAULT, BatchSize
from jaxood.runner.features import Skipped
from jaxood.runner.runner import Runner, skipped_of
from jaxood.runner.step import TOP_CLASS, ExtractionStep

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True)
class Verdict:
    """What is said of one image.

    Attributes:
      index: of the image in its set.
      label: index of the most probable class.
      class_name: its name.
      probability: softmax of that class, in [0, 1].
      score: higher means more in-distribution.
      in_distribution: whether the score reaches the detector's threshold.
    """

    index: int
    id: str
    label: int
    class_name: str
    probability: float
    score: float
    in_distribution: bool


class Judged(NamedTuple):
    """What is computed of a batch, a row an image."""

    label: Any
    probability: Any
    score: Any


@dataclass(frozen=True)
class ImageDetector:
    """What `fit` makes, and what a detector file holds; it is frozen, and scoring is pure.

    Attributes:
      fitted: method, state and threshold, with what they were fitted with.
      passing: how many of the calibration images reach the threshold, of how many; None for a
        detector that was read from a file.
    """

    model: LoadedModel = field(repr=False)
    fitted: SavedDetector = field(repr=False)
    passing: tuple[int, int] | None = None

    @property
    def threshold(self) -> float:
        """An image that scores at least this much is in distribution."""
        return self.fitted.threshold

    def __str__(self) -> str:
        method, lines = self.fitted.method.name, []
        if self.fitted.bank is not None:
            lines.append(f"fitted on {len(self.fitted.bank)} training images")
        said = f"threshold {self.threshold:.6g} on {method}"
        if self.passing:
            said += f": {self.passing[0]} of {self.passing[1]} in-distribution images reach it"
        return "\n".join([*lines, said])

    def detect(
        self,
        images: Any,
        *,
        batch_size: BatchSize = DEFAULT,
        on_skipped: Callable[[Skipped], None] | None = None,
    ) -> Iterator[Verdict]:
        """Yields a verdict for each image that can be decoded, as batches finish.

        Of several processes each judges its share of the images; all yield all verdicts, at the
        end.

        Args:
          images: paths, folders, lists, PIL images, uint8 arrays of any size, or an image set.
          on_skipped: told of each image that cannot be decoded; default: a warning is logged.

        Raises:
          UsageError: before the first verdict, for images that are not there.
        """
        found = image_set(images)
        size = self.images_a_step(batch_size, len(found))
        return self._verdicts(found, size, on_skipped or _log)

    def _verdicts(self, images, batch_size, on_skipped) -> Iterator[Verdict]:
        if jax.process_count() == 1:
            yield from self._own_verdicts(images, batch_size, on_skipped)
            return
        require_same_images([images])
        fitted = self.fitted
        request = fingerprint(fitted.model, fitted.method.name, fitted.threshold, batch_size)
        require_agreed("arguments", request, "other ones")
        first, own = share_of(len(images)).start, own_share(images)
        left_out: list[Skipped] = []
        found = [] if own is None else self._own_verdicts(own, batch_size, left_out.append)
        rows = [(first + one.index, one.label, one.probability, one.score) for one in found]
        told = [(first + image.index, image.reason) for image in left_out]
        for theirs, skipped in gathered_values((rows, told)):
            for index, reason in skipped:
                on_skipped(Skipped(index, images.ids[index], reason))
            for index, label, probability, score in theirs:
                yield self._verdict(index, images.ids[index], label, probability, np.float32(score))

    def images_a_step(self, batch_size: BatchSize, images: int = 1 << 30) -> int:
        """`batch_size`, or what "auto" stands for, with so many images."""
        if batch_size != AUTO:
            return batch_size
        return self._runner.check(tuple(self.fitted.method.extractors.values()), AUTO, images)

    def _own_verdicts(self, images, batch_size, on_skipped) -> Iterator[Verdict]:
        runner, method = self._runner, self.fitted.method
        extractors = tuple(method.extractors.values())
        stream = runner.stream(images, extractors, batch_size=batch_size, seed=self.fitted.seed)
        with closing(stream):  # type: ignore[type-var]  # a generator
            for batch, found in stream:
                for skipped in skipped_of(batch, images):
                    on_skipped(skipped)
                if not batch.valid.any():
                    continue
                # All rows are scored, so that it compiles once; those of no image may be anything.
                row = int(batch.valid.argmax())
                whole = jax.tree.map(
                    lambda array, row=row, batch=batch: np.where(
                        batch.valid.reshape(-1, *(1,) * (array.ndim - 1)), array, array[row]
                    ),
                    found,
                )
                outputs = host_outputs(runner.model.head, *whole)
                scores = score_rows(
                    method, self.fitted.state, outputs, runner.model.head, runner.mesh
                )
                probabilities = np.asarray(jax.nn.softmax(whole.logits, axis=-1))
                labels = whole.logits.argmax(axis=1)
                for row in map(int, np.flatnonzero(batch.valid)):
                    label, index = labels[row], int(batch.indices[row])
                    probability = probabilities[row, label]
                    yield self._verdict(index, images.ids[index], label, probability, scores[row])

    def detect_image(self, image: Any) -> Verdict:
        """One verdict, for an image of any size.

        The image is resized and cropped as the model wants it. The first call compiles one
        program for one image, all later ones use it.

        Args:
          image: a PIL image, a uint8 array [h, w, 3] or [h, w], or the bytes of an encoded image,
            which is read as a file of a format that this package opens.

        Raises:
          UsageError: for what is no image, or one too thin to be resized.
        """
        check_pictures([image], "image")
        try:
            pixels = prepared(image, self.model.preprocessing)
        except UndecodableImage as error:
            raise UsageError("image", error, "an image that can be decoded") from None
        run, state = self._single
        found = jax.device_get(run(*state, pixels[None]))
        (label,), (probability,), (score,) = found
        if not np.isfinite(score):
            raise UsageError("image", f"the score {score}", "a finite one", "Look at the weights")
        return self._verdict(0, "image", label, probability, score)

    def _verdict(self, index, name, label, probability, score) -> Verdict:
        return Verdict(
            index,
            name,
            int(label),
            self.fitted.classes[label] if self.fitted.classes else "",
            float(probability),
            float(score),
            bool(score >= self.threshold),
        )

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.model)

    @cached_property
    def _single(self):
        """The program for one image, and all of its arguments but the image."""
        module = with_kernels_laid_out(self.model.module, jax.default_backend())
        graphdef, weights = nnx.split(module)
        step = _step(self.model, self.fitted)

        def judge(weights, state, images):
            model = nnx.merge(graphdef, weights)
            logits, score = _scored(step, self.fitted, model, state, images)
            probability = jax.nn.softmax(logits, axis=-1)
            return Judged(jnp.argmax(logits, axis=-1), probability.max(axis=-1), score)

        return jit(judge), (weights, self.fitted.state)

    def export(self, path: Path | str, batch_size: int, platforms: tuple[str, ...] = PLATFORMS):
        """Writes model, method and threshold as one compiled program that runs with jax alone.

        `jaxood.load_scorer` reads it, or three lines without this package: see `flows/scorer.py`.

        Raises:
          UsageError: when the bank does not lie in the memory of one device.
        """
        memory = getattr(self.fitted.method.detector, "memory", "device")
        wanted = "a bank with memory=device"
        require(memory == "device", "export", f"memory={memory}", wanted)
        require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        step, state = _step(self.model, self.fitted), self.fitted.state
        threshold = jnp.float32(self.threshold)

        def scorer(images):
            logits, scores = _scored(step, self.fitted, self.model.module, state, images)
            return {"logits": logits, "score": scores, "in_distribution": scores >= threshold}

        side = self.model.preprocessing.crop
        images = jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8)
        program = jax.export.export(jax.jit(scorer), platforms=platforms)(images)
        write_scorer(Path(path), program)

    def save(self, path: Path | str) -> Path:
        """Writes the detector file: arrays and JSON, all of it or nothing.

        Raises:
          OSError: when it cannot be written.
        """
        save_detector(Path(path), self.fitted)
        return Path(path)


def _step(model: LoadedModel, fitted: SavedDetector) -> ExtractionStep:
    extractors = tuple(fitted.method.extractors.values())
    return ExtractionStep(model.preprocessing, model.array_type, model.pooling, extractors)


def _scored(step: ExtractionStep, fitted: SavedDetector, model, state, images):
    """Logits and scores of a batch, in the one program that runs the network."""
    target = jnp.full(len(images), TOP_CLASS, jnp.int32)
    pooled, logits, extras = step(model, images, target, jax.random.key(fitted.seed))
    penultimate = model.head.penultimate(pooled)
    outputs = ModelOutputs(None, pooled, penultimate, logits, extras)
    return logits, fitted.method.score(state, outputs, model.head)


def load_detector(
    path: Path | str,
    model: ModelSource,
    parts: Iterable[type[Step | Extractor]] = (),
) -> ImageDetector:
    """Reads a detector file for the model that it was fitted with.

    Args:
      parts: classes of your own that its method is made of; a file never imports any.

    Raises:
      UsageError: a file that is missing, damaged, or of another model.
    """
    fitted = read_detector(Path(path), parts)
    model = load_model(model)
    fitted.require_model(model.identity())
    return ImageDetector(model, fitted)


def _log(skipped: Skipped) -> None:
    logging.getLogger("jaxood").warning("left out: %s: %s", skipped.id, skipped.reason)
