"""From a method to yes or no for each image: fit it, and set its threshold."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxood.data.cached import require_space
from jaxood.data.images import ImageSet
from jaxood.data.relabelled import numbered_by
from jaxood.data.shares import own_share, require_same_images
from jaxood.data.sources import image_set
from jaxood.data.suite import require_root
from jaxood.detectors.saved import SavedDetector
from jaxood.detectors.scoring import score_rows
from jaxood.errors import require, require_seed
from jaxood.flows.detector import ImageDetector
from jaxood.flows.fitting import bank_indices, check_fit_labels
from jaxood.flows.overlap import shared
from jaxood.flows.request import MethodSource, parsed
from jaxood.flows.scoring import outputs_of
from jaxood.flows.sources import ModelSource, load_model, names_of_folders
from jaxood.metrics.ood import threshold_at
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Features, skipped_lines
from jaxood.runner.runner import Runner, SetProgress


def fit(
    model: ModelSource,
    method: MethodSource = "nnguide",
    *,
    train: Any = None,
    calibrate: Any,
    root: Path | str | None = None,
    tpr: float = 0.95,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    batch_size: BatchSize = DEFAULT,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    seed: int = 0,
    cache_images: Path | str | None = None,
    progress: SetProgress | None = None,
) -> ImageDetector:
    """Fits a method on training images, and sets its threshold on others.

    Args:
      model: see `jaxood.load_model`.
      method: a name, composed with "+", or an object.
      train: in-distribution images that the model was trained on: a folder with a sub-folder for
        each class, a list, or an image set; None where the method needs none. An image set, or
        any path, may be wherever images are asked for.
      calibrate: in-distribution images, not those of `train`: the threshold is the highest that
        a share `tpr` of them reaches.
      root: of the paths in lists, see `jaxood.data.files.ImageFiles.from_path`.
      settings: parameters by part and name: `{"knn": {"k": 50}}`.
      bank_fraction: of the training images, drawn with `seed`, that the method is fitted on.
      balanced_bank: draws as many of each class.
      cache_images: folder where decoded images are kept, as a model of this input size takes them,
        for runs that follow; n x crop x crop x 3 bytes.
      progress: given a set's name, returns what is told (images done, images in all).

    Raises:
      UsageError: when images, labels or values are missing or wrong.
    """
    require_seed("seed", seed)
    require(0 < tpr <= 1, "tpr", tpr, "above 0 and at most 1")
    (chosen,) = parsed(method, settings)
    loaded = load_model(model)
    chosen.check_head(loaded.head)
    require_root([given for given in (train, calibrate) if isinstance(given, str | Path)], root)
    known = image_set(calibrate, "in distribution", "calibrate", root)
    known = numbered_by(known, loaded.class_names)
    training = None
    if train is not None:
        training = numbered_by(image_set(train, "train", "train", root), loaded.class_names)
    runner = Runner(loaded, cache_images=cache_images)
    extractors = tuple(chosen.extractors.values())
    log = logging.getLogger("jaxood")
    learned: dict[str, Features] = {}
    outputs = labels = bank = None
    if chosen.needs_train:
        bank = bank_indices(training, [chosen], bank_fraction, seed, balanced_bank)
        assert training is not None
        training = training.subset(bank)
        check_fit_labels(training, [chosen], loaded)
    batch_size = runner.check(extractors, batch_size)
    require_same_images([training, known])
    shares = [own_share(images) for images in (training, known) if images is not None]
    require_space(shares, cache_images, loaded.preprocessing)

    def features_of(images: ImageSet, name: str) -> Features:
        features = runner.extract(
            images,
            extractors,
            batch_size=batch_size,
            seed=seed,
            progress=progress(name) if progress else None,
        )
        for line in skipped_lines(name, features.skipped, len(images)):
            log.warning("%s", line)
        return features

    if bank is not None and training is not None:
        features = learned["train"] = features_of(training, "train")
        outputs = outputs_of(loaded, features)
        labels = None if training.labels is None else training.labels[features.indices]
        bank = bank[features.indices]
    state = chosen.fit_state(outputs, labels, loaded.head)
    calibration = features_of(known, known.name)
    for line in shared(learned | {"calibrate": calibration}).values():
        log.warning("%s: the threshold is set on what was learned", line)
    held_out = outputs_of(loaded, calibration)
    ids = [known.ids[index] for index in calibration.indices]
    scores = score_rows(chosen, state, held_out, loaded.head, runner.mesh, ids, together=True)
    threshold = threshold_at(scores, tpr)
    names = names_of_folders(loaded, training, known).class_names
    fitted = SavedDetector(chosen, state, threshold, tpr, loaded.identity(), names, bank, seed)
    return ImageDetector(loaded, fitted, (int((scores >= threshold).sum()), len(scores)))
