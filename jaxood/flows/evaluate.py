"""Tells in-distribution from out-of-distribution images by many methods, and reports how well.

One pass over each set of a suite; then every method is fitted and scored on small arrays.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from jaxood.data.images import ImageSet
from jaxood.data.suites import Suite
from jaxood.data.suites import suite as suite_of
from jaxood.detectors.bank import draw_bank
from jaxood.detectors.contract import Detector, check_labels
from jaxood.detectors.grammar import parse_methods
from jaxood.detectors.method import Method
from jaxood.detectors.scoring import host_outputs, score_rows
from jaxood.errors import UsageError, choose, require
from jaxood.flows.overlap import shared
from jaxood.flows.sources import ModelSource, load_model, model_of_suite
from jaxood.metrics.ood import FPR_CONVENTIONS, measure
from jaxood.models.registry import LoadedModel
from jaxood.outputs import ModelOutputs
from jaxood.report import plots, tables
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.tables import MethodResult, Scores, SetArrays, set_keys
from jaxood.runner.features import Features, Skipped
from jaxood.runner.runner import Progress, Runner

SHOWN = 5  # undecodable images of a set that are named when a result is printed
FILES = ("metrics.csv", "metrics.json", "scores.npz", "roc.png", "scores.png", "manifest.json")

MethodSource = str | Method | Detector
SetProgress = Callable[[str], Progress]  # given a set's name, what is told of each batch


class SetFeatures(NamedTuple):
    """An image set, and what was extracted of it."""

    images: ImageSet
    features: Features

    @property
    def ids(self) -> list[str]:
        """What each row is called."""
        return [self.images.ids[index] for index in self.features.indices]


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found.

    Attributes:
      results: one a method: scores, metrics.
      failures: what went wrong, by the name of a method that has no result.
      methods: all of them, by name.
      train: what methods were fitted on; None where none is.
      bank: indices in the suite's training set of the images of `train`.
      shared: by a set, a line about images that an earlier set has too.
      accuracy: top-1, of the ID test set; None where its labels are not the model's classes.
      settings: what else decided the result.
    """

    model: LoadedModel
    suite: Suite
    results: tuple[MethodResult, ...]
    failures: Mapping[str, str]
    methods: Mapping[str, Method]
    train: SetFeatures | None
    id_test: SetFeatures
    ood: Mapping[str, SetFeatures]
    bank: Int[np.ndarray, " b"] | None
    shared: Mapping[str, str]
    accuracy: float | None
    fpr_convention: str
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def sets(self) -> dict[str, SetFeatures]:
        """All of them, by what they are called in files."""
        keys = set_keys(self.id_test.images.name, self.ood, self.train is not None)
        train = {} if self.train is None else {"train": self.train}
        return {
            keys[role, name]: found
            for role, members in (
                ("train", train),
                ("id", {self.id_test.images.name: self.id_test}),
                ("ood", self.ood),
            )
            for name, found in members.items()
        }

    @property
    def skipped(self) -> dict[str, tuple[Skipped, ...]]:
        """The undecodable images of each set."""
        return {name: found.features.skipped for name, found in self.sets.items()}

    def __str__(self) -> str:
        lines = [tables.table(self.results, self.fpr_convention)] if self.results else []
        lines += [f"{name}: no result: {reason}" for name, reason in self.failures.items()]
        if self.accuracy is not None:
            lines.append(f"accuracy on {self.id_test.images.name}: {100 * self.accuracy:.2f} %")
        lines += [f"warning: {line}" for line in self.shared.values()]
        for name, found in self.sets.items():
            lines += skipped_lines(name, found.features.skipped, len(found.images))
        return "\n".join(lines)

    def save(self, folder: Path | str) -> Path:
        """Writes metrics.csv, metrics.json, scores.npz, manifest.json, roc.png and scores.png.

        Every file is whole or absent; the folder is made.
        """
        folder, name = Path(folder), self.id_test.images.name
        keys = set_keys(name, self.ood, self.train is not None)
        arrays = [
            SetArrays(
                key,
                found.ids,
                found.features.predicted,
                _labels(found),
            )
            for key, found in self.sets.items()
        ]
        about = manifest(
            self.settings,
            self.model,
            {key: (found.images, found.features.skipped) for key, found in self.sets.items()},
            methods={name: method.spelled_out for name, method in self.methods.items()},
            failures=self.failures,
            shared=self.shared,
            accuracy=self.accuracy,
            bank=self.bank,
        )
        put_aside(folder, FILES, about)
        path = folder / "scores.npz"
        tables.write_arrays(path, tables.score_arrays(self.results, name, keys, arrays))
        if self.results:
            tables.write_metrics(folder, self.results, self.fpr_convention)
            plots.draw_roc(folder / "roc.png", self.results, name)
            plots.draw_histograms(folder / "scores.png", self.results, name)
        write_json(folder / "manifest.json", about)
        return folder


def skipped_lines(name: str, skipped: Sequence[Skipped], images: int) -> list[str]:
    """What is said of a set's undecodable images: how many, and the first by name."""
    if not skipped:
        return []
    lines = [f"{name}: {len(skipped)} of {images} images left out: undecodable"]
    lines += [f"  {image.id}: {image.reason}" for image in skipped[:SHOWN]]
    more = len(skipped) - SHOWN
    return [*lines, f"  ... and {more} more, all in the manifest"] if more > 0 else lines


def evaluate(
    model: ModelSource | None,
    suite: str | Suite,
    methods: MethodSource | Sequence[MethodSource] = "sfp",
    *,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    sweeps: Mapping[str, Mapping[str, Sequence[object]]] | None = None,
    batch_size: int = 32,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    fpr_convention: str = "plain",
    seed: int = 0,
    store: Path | str | None = None,
    progress: SetProgress | None = None,
) -> EvaluationResult:
    """Extracts every set of a suite once, then fits, scores and measures each method.

    Args:
      model: see `jaxood.load_model`; None: the one that belongs to the suite.
      suite: a name ("digits", "photos"), or a `jaxood.Suite`.
      methods: names, composed with "+", or objects. Each is also shown beside its plain
        counterpart, the same score without view and transforms.
      settings: parameters by part and name: `{"knn": {"k": 50}}`.
      sweeps: several values by part and name, each a method of its own.
      batch_size: images a step over all devices.
      bank_fraction: of the training images, drawn with `seed`, that methods are fitted on.
      balanced_bank: draws as many of each class.
      fpr_convention: of FPR95: "plain", "openood", "nnguide" or "sfp".
      seed: of every random draw.
      store: folder where extracted features are kept, for an interrupted run to go on and for
        other methods on the same images.
      progress: given a set's name, returns what is told (images done, images in all).

    Returns:
      Results of all methods that could be fitted and scored; what went wrong with the others.

    Raises:
      UsageError: what can be known before the pass is said before it; and when no method is left.
    """
    chosen = check_request(methods, settings, sweeps, fpr_convention, seed)
    suite = suite_of(suite)
    model = load_model(model_of_suite(suite.name) if model is None else model)
    known = suite.id_test
    if known.labels is not None and known.labels_are_classes:
        check_labels(known.labels, model.classes, "id_test")
    bank = train = None
    if any(method.needs_train for method in chosen):
        bank = bank_indices(suite.train, chosen, bank_fraction, seed, balanced_bank)
        assert suite.train is not None
        train = suite.train.subset(bank)
        check_train_labels(train, chosen, model)
    extractors = {key: one for method in chosen for key, one in method.extractors.items()}
    runner = Runner(model)
    runner.check(tuple(extractors.values()), batch_size)

    def extracted(images: ImageSet, name: str) -> SetFeatures:
        features = runner.extract(
            images,
            tuple(extractors.values()),
            batch_size=batch_size,
            seed=seed,
            store=Path(store) if store else None,
            progress=progress(name) if progress else None,
        )
        return SetFeatures(images, features)

    fitted_on = None if train is None else extracted(train, "train")
    id_test = extracted(suite.id_test, suite.id_test.name)
    ood = {name: extracted(images, name) for name, images in suite.ood.items()}
    results, failures = _scored(
        runner, chosen, fitted_on, id_test, ood, fpr_convention=fpr_convention, seed=seed
    )
    accuracy = tables.accuracy(id_test.images, id_test.features.indices, id_test.features.logits)
    return EvaluationResult(
        model=model,
        suite=suite,
        results=results,
        failures=failures,
        methods={method.name: method for method in chosen},
        train=fitted_on,
        id_test=id_test,
        ood=ood,
        bank=None if bank is None or fitted_on is None else bank[fitted_on.features.indices],
        shared=shared(
            ({"train": fitted_on.features} if fitted_on else {})
            | {"in distribution": id_test.features}
            | {f"OOD set {name}": found.features for name, found in ood.items()}
        ),
        accuracy=accuracy,
        fpr_convention=fpr_convention,
        settings={
            "suite": suite.name,
            "methods": [method.name for method in chosen],
            "batch_size": batch_size,
            "bank_fraction": bank_fraction,
            "balanced_bank": balanced_bank,
            "fpr_convention": fpr_convention,
            "seed": seed,
        },
    )


def _scored(
    runner: Runner,
    methods: Sequence[Method],
    train: SetFeatures | None,
    id_test: SetFeatures,
    ood: Mapping[str, SetFeatures],
    fpr_convention: str,
    seed: int,
) -> tuple[tuple[MethodResult, ...], dict[str, str]]:
    """Fits, scores and measures; a method that fails does not take the others with it."""
    head = runner.model.head
    outputs = labels = None
    if train is not None:
        outputs, labels = outputs_of(runner.model, train.features), _labels(train)

    def with_ids(found: SetFeatures) -> tuple[ModelOutputs, list[str]]:
        return outputs_of(runner.model, found.features), found.ids

    known, sets = with_ids(id_test), {name: with_ids(found) for name, found in ood.items()}
    results, failures = [], {}
    for method in methods:
        try:
            state = method.fit_state(outputs, labels, head)

            def score(found, method=method, state=state):
                outputs, ids = found
                return score_rows(method, state, outputs, head, runner.mesh, ids)

            scores = Scores(score(known), {name: score(found) for name, found in sets.items()})
            metrics = {
                name: measure(scores.id, foreign, fpr_convention, seed)
                for name, foreign in scores.ood.items()
            }
        except UsageError as error:
            if len(methods) == 1:
                raise
            failures[method.name] = str(error)
            logging.getLogger("jaxood").warning("%s: %s", method.name, error)
            continue
        plain = None if method.plain is None else method.plain.name
        results.append(MethodResult(method.name, plain, scores, metrics))
    if not results:
        name, reason = next(iter(failures.items()))
        raise UsageError("methods", f"{len(methods)}, none of which gave scores", "one", reason)
    return tuple(results), failures


def outputs_of(model: LoadedModel, features: Features):
    """Extracted features at the depths that methods read, on the host."""
    return host_outputs(model.head, features.pooled, features.logits, features.extras)


def _labels(found: SetFeatures) -> Int[np.ndarray, " n"] | None:
    labels = found.images.labels
    return None if labels is None else labels[found.features.indices]


def parsed(
    methods: MethodSource | Sequence[MethodSource],
    settings: Mapping[str, Mapping[str, object]] | None = None,
    sweeps: Mapping[str, Mapping[str, Sequence[object]]] | None = None,
) -> list[Method]:
    """One or several methods as objects.

    Raises:
      UsageError: for an empty list, and as `parse_methods`.
    """
    several = [methods] if isinstance(methods, str | Method | Detector) else list(methods)
    require(bool(several), "methods", "none", "one or more")
    return parse_methods(several, settings or {}, sweeps or {})


def check_request(
    methods: MethodSource | Sequence[MethodSource],
    settings: Mapping[str, Mapping[str, object]] | None,
    sweeps: Mapping[str, Mapping[str, Sequence[object]]] | None,
    fpr_convention: str,
    seed: int,
) -> list[Method]:
    """The methods and their plain counterparts, when all that was asked for makes sense.

    Raises:
      UsageError: otherwise, before a model is loaded.
    """
    choose("fpr_convention", fpr_convention, FPR_CONVENTIONS)
    require_seed(seed)
    return with_plain(parsed(methods, settings, sweeps))


def with_plain(methods: Sequence[Method]) -> list[Method]:
    """The methods, and before them the plain counterparts that are not among them."""
    plain = [counterpart for method in methods if (counterpart := method.plain)]
    missing = [method for method in dict.fromkeys(plain) if method not in methods]
    return [*missing, *methods]


def require_seed(seed: int) -> None:
    require(
        isinstance(seed, int) and 0 <= seed < 2**32, "seed", seed, "a whole number, 0 to 2**32 - 1"
    )


def bank_indices(
    train: ImageSet | None,
    methods: Sequence[Method],
    fraction: float | None,
    seed: int,
    balanced: bool = False,
) -> Int[np.ndarray, " b"]:
    """Which training images methods are fitted on, chosen before any is read.

    Raises:
      UsageError: when there are none, or none with labels where a method needs them.
    """
    needy = next(method for method in methods if method.needs_train)
    if train is None:
        wanted = f"training images, on which method {needy.name} is fitted"
        raise UsageError("train", "none", wanted)
    labelled = next((method for method in methods if method.needs_labels), None)
    if labelled and train.labels is None:
        wanted = f"a folder with a sub-folder for each class, as method {labelled.name} needs them"
        raise UsageError("train", "training images without classes", wanted)
    if fraction is not None:
        require(0 < fraction <= 1, "bank_fraction", fraction, "above 0 and at most 1")
    return draw_bank(len(train), train.labels, fraction, jax.random.key(seed), balanced)


def check_train_labels(train: ImageSet, methods: Sequence[Method], model: LoadedModel) -> None:
    """Raises UsageError for labels that a method cannot be fitted on: before the pass."""
    for method in methods:
        if method.needs_labels:
            method.check(train.labels, model.classes)
