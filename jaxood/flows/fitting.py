"""Which images methods are fitted on; what is wrong with them is said before any is read."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from jaxood.data.images import ImageSet
from jaxood.data.suite import Suite
from jaxood.detectors.bank import draw_bank
from jaxood.detectors.contract import SPLITS, Split
from jaxood.detectors.method import Method
from jaxood.errors import UsageError, require
from jaxood.models.registry import LoadedModel

CHECK = "`jaxood suites check` tells what is missing, and where it comes from"


class FitSets(NamedTuple):
    """What methods are fitted on; None where no method is fitted on such images.

    Attributes:
      train: a draw from the training images.
      bank: their indices among them.
      validation: images that were held out.
    """

    train: ImageSet | None
    bank: Int[np.ndarray, " b"] | None
    validation: ImageSet | None


def fit_sets(
    suite: Suite,
    methods: Sequence[Method],
    model: LoadedModel,
    fraction: float | None,
    seed: int,
    balanced: bool,
) -> FitSets:
    """The images of a suite that methods are fitted on.

    Raises:
      UsageError: when they are missing, or their labels do not do.
    """
    held_out = suite.id_validation is not None
    train = bank = validation = None
    if any(method.fitted_on("train", held_out) for method in methods):
        bank = bank_indices(suite.train, methods, fraction, seed, balanced, held_out)
        assert suite.train is not None
        train = suite.train.subset(bank)
        check_fit_labels(train, methods, model, "train", held_out)
    if any(method.fitted_on("validation", held_out) for method in methods):
        validation = suite.id_validation
        assert validation is not None
        check_fit_labels(validation, methods, model, "validation", held_out)
    return FitSets(train, bank, validation)


def require_sets(suite: Suite, methods: Sequence[Method], full_spectrum: bool) -> None:
    """Raises UsageError for sets of the suite that are asked for and are not on the disk."""
    held_out = suite.id_validation is not None or "id_validation" in suite.missing
    asked: list[tuple[str, str]] = []
    for method in methods:
        fits = f"images that method {method.name} is fitted on"
        asked += [("train", fits)] if method.fitted_on("train", held_out) else []
        asked += [("id_validation", fits)] if method.fitted_on("validation", held_out) else []
    if full_spectrum:
        shifted = [key for key in suite.missing if key.startswith("shifted.")]
        asked += [(key, "all covariate-shifted sets") for key in shifted]
        got = f"suite {suite.name}, which has no covariate-shifted sets"
        require(suite.shifted or shifted, "full_spectrum", got, "one that has some")
    for key, wanted in asked:
        if key in suite.missing:
            raise UsageError("suite", suite.missing[key], wanted, CHECK)


def splits(suite: Suite, methods: Sequence[Method]) -> dict[str, list[Split]]:
    """By method, the images that it is fitted on; without methods that are not."""
    held_out = suite.id_validation is not None
    fitted = {
        method.name: [split for split in SPLITS if method.fitted_on(split, held_out)]
        for method in methods
    }
    return {name: found for name, found in fitted.items() if found}


def bank_indices(
    train: ImageSet | None,
    methods: Sequence[Method],
    fraction: float | None,
    seed: int,
    balanced: bool = False,
    validation: bool = False,
) -> Int[np.ndarray, " b"]:
    """Which training images methods are fitted on, chosen before any is read.

    Args:
      validation: whether there are validation images, on which steps that ask for them are fitted.

    Raises:
      UsageError: when there are none, or none with labels where a method needs them.
    """
    fitted = {method: method.fitted_on("train", validation) for method in methods}
    needy = next(method for method, steps in fitted.items() if steps)
    if train is None:
        wanted = f"training images, on which method {needy.name} is fitted"
        raise UsageError("train", "none", wanted)
    labelled = next(
        (method for method, steps in fitted.items() if any(step.needs_labels for step in steps)),
        None,
    )
    if fraction is not None:
        require(0 < fraction <= 1, "bank_fraction", fraction, "above 0 and at most 1")
    # A set may have to read all of its images for their labels: those of the bank are enough.
    labels = train.labels if balanced else None
    bank = draw_bank(len(train), labels, fraction, jax.random.key(seed), balanced)
    if labelled and train.subset(bank).labels is None:
        wanted = f"a folder with a sub-folder for each class, as method {labelled.name} needs them"
        raise UsageError("train", "training images without classes", wanted)
    return bank


def check_fit_labels(
    images: ImageSet,
    methods: Sequence[Method],
    model: LoadedModel,
    split: Split = "train",
    validation: bool = False,
) -> None:
    """Raises UsageError for labels that a method cannot be fitted on: before the pass."""
    for method in methods:
        needy = any(step.needs_labels for step in method.fitted_on(split, validation))
        if needy and images.labels is None:
            got = f"{images.name} images without classes"
            raise UsageError("suite", got, f"classes, as method {method.name} needs them")
        if needy:
            method.check(images.labels, model.classes, split, validation)
