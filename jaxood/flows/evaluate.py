"""Tells in-distribution from out-of-distribution images by many methods, and reports how well.

One pass over each set of a suite; then every method is fitted and scored on small arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxood.context import Extractor
from jaxood.data.cached import require_space
from jaxood.data.images import ImageSet
from jaxood.data.relabelled import numbered_by
from jaxood.data.shares import own_share, require_same_images
from jaxood.data.suite import Suite
from jaxood.data.suites import suite as suite_of
from jaxood.detectors.contract import SPLITS, check_labels
from jaxood.detectors.method import Method
from jaxood.errors import require
from jaxood.files import write_whole
from jaxood.flows.examples import examples
from jaxood.flows.fitting import fit_sets, require_sets, splits
from jaxood.flows.overlap import shared
from jaxood.flows.request import MethodSource, Tune, candidates_of, check_request, with_plain
from jaxood.flows.scoring import SetFeatures, TestedSets, scored
from jaxood.flows.sources import ModelSource, load_model, model_of_suite, names_of_folders
from jaxood.flows.tuning import Tuning, require_validation, tuned
from jaxood.models.registry import LoadedModel
from jaxood.report import plots, tables
from jaxood.report.evaluation_page import evaluation_page
from jaxood.report.figures import check_format
from jaxood.report.joined import Report
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.rows import FULL_SPECTRUM, Run, accuracy_row, rows_of
from jaxood.report.tables import MethodResult, SetArrays, set_keys
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Skipped
from jaxood.runner.runner import Progress, Runner

SHOWN = 5  # undecodable images of a set that are named when a result is printed
FILES = (
    "metrics.csv",
    "metrics.json",
    "table.md",
    "table.tex",
    "scores.csv",
    "scores.npz",
    "roc.png",
    "scores.png",
    "report.html",
    "manifest.json",
)
PRECISION = "precision.csv"  # beside them, where arithmetics were compared
TUNING = "tuning.csv"  # and where parameters were tuned

SetProgress = Callable[[str], Progress]  # given what is worked on, what is told of each batch


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found.

    Attributes:
      results: one a method: scores, metrics.
      failures: what went wrong, by the name of a method that has no result.
      methods: all of them, by name.
      train: the training images that methods were fitted on; None where none is.
      bank: indices in the suite's training set of the images of `train`.
      validation: the validation images that methods were fitted or tuned on; None where none is.
      ood_validation: on which, beside `validation`, parameters were tuned; None where none were.
      shifted: covariate-shifted ID sets, by name; empty where they were not asked for.
      shared: by a set, a line about images that an earlier set has too.
      accuracies: top-1, of the ID test set and shifted ones whose labels are the model's classes.
      maps: the extras that are maps of where a score rests.
      settings: what else decided the result.
      tuning: what was tried of methods whose parameters were tuned.
      label: what the model is called in tables.
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
    accuracies: Mapping[str, float]
    fpr_convention: str
    seed: int
    label: str
    maps: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    validation: SetFeatures | None = None
    shifted: Mapping[str, SetFeatures] = field(default_factory=dict)
    ood_validation: SetFeatures | None = None
    tuning: Tuning | None = None

    @property
    def report(self) -> Report:
        """The numbers, a row each; joins with those of other runs."""
        run = Run(
            self.label,
            self.model.weights_hash[:8],
            self.suite.name,
            self.seed,
            self.suite.groups,
            self.fpr_convention,
        )
        rows = rows_of(run, self.results)
        tested = {self.id_test.images.name: self.id_test, **self.shifted}
        for name, accuracy in self.accuracies.items():
            rows.append(accuracy_row(run, name, accuracy, len(tested[name].features)))
        return Report(tuple(rows))

    @property
    def accuracy(self) -> float | None:
        """Top-1 on the ID test set; None where its labels are not the model's classes."""
        return self.accuracies.get(self.id_test.images.name)

    @property
    def _accuracy_lines(self) -> list[str]:
        return [f"accuracy on {name}: {100 * top:.2f} %" for name, top in self.accuracies.items()]

    @property
    def sets(self) -> dict[str, SetFeatures]:
        """All of them, by what they are called in files."""
        members = self._members
        keys = set_keys(members)
        return {
            keys[role, name]: found
            for role, named in members.items()
            for name, found in named.items()
        }

    @property
    def _members(self) -> dict[str, Mapping[str, SetFeatures]]:
        """By role and name."""
        tuned_on = self.ood_validation
        return {
            "train": {} if self.train is None else {"train": self.train},
            "validation": {} if self.validation is None else {"validation": self.validation},
            "OOD validation": {} if tuned_on is None else {"OOD validation": tuned_on},
            "id": {self.id_test.images.name: self.id_test},
            "shifted": self.shifted,
            "ood": self.ood,
        }

    @property
    def skipped(self) -> dict[str, tuple[Skipped, ...]]:
        """The undecodable images of each set."""
        return {name: found.features.skipped for name, found in self.sets.items()}

    def __str__(self) -> str:
        return self.text()

    def text(self, sort: str | None = None, bold: bool = False) -> str:
        """Tables and what must be known besides; for options see `jaxood.report.tables.table`."""
        how = self.fpr_convention, sort, bold
        lines = [tables.table(self.results, *how)] if self.results else []
        if self.shifted and self.results:
            metrics = [m for m in self.report.metrics if m.startswith(FULL_SPECTRUM)]
            lines += ["", *map(str, self.report.tables(metrics[:2]))]
        lines += [f"{name}: no result: {reason}" for name, reason in self.failures.items()]
        lines += self.tuning.lines if self.tuning else []
        lines += self._accuracy_lines
        lines += [f"warning: {line}" for line in self.shared.values()]
        for name, found in self.sets.items():
            lines += skipped_lines(name, found.features.skipped, len(found.images))
        return "\n".join(lines)

    def save(self, folder: Path | str, *, figures: str = "png") -> Path:
        """Writes tables, scores, pictures, a page to look at and the manifest: `FILES`.

        Every file is whole or absent; the folder is made.

        Args:
          figures: the format of the curves: "png", "svg" or "pdf".
        """
        check_format(figures)
        folder, name = Path(folder), self.id_test.images.name
        keys = set_keys(self._members)
        arrays = [
            SetArrays(key, found.ids, found.features.predicted, found.labels)
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
            accuracies=self.accuracies,
            bank=self.bank,
            **({"tuned": self.tuning.chosen} if self.tuning else {}),
        )
        put_aside(folder, (*FILES, PRECISION, TUNING), about)
        if self.tuning:
            self.tuning.save(folder / TUNING)
        path = folder / "scores.npz"
        tables.write_arrays(path, tables.score_arrays(self.results, name, keys, arrays))
        if self.results:
            self.report.save(folder)
            tables.write_scores(folder / "scores.csv", self.results, keys, arrays)
            plots.draw_roc(folder / f"roc.{figures}", self.results, name)
            plots.draw_histograms(folder / f"scores.{figures}", self.results, name)
        write_whole(folder / "report.html", self._page(about).encode())
        write_json(folder / "manifest.json", about)
        return folder

    def _page(self, about: Mapping[str, object]) -> str:
        """report.html; its images are those of the method with the best mean AUROC."""
        name = self.id_test.images.name
        notes = [*(self.tuning.lines if self.tuning else []), *self._accuracy_lines]
        warnings = [f"{name}: no result: {why}" for name, why in self.failures.items()]
        warnings += self.shared.values()
        for key, found in self.sets.items():
            warnings += skipped_lines(key, found.features.skipped, len(found.images))
        summary, shown, ranked_by = None, [], ""
        if self.results:
            (summary,) = self.report.tables(sort="auroc")
            best = max(self.results, key=lambda result: result.mean("auroc"))
            ranked_by = best.method
            sets = [(name, self.id_test, best.scores.id)]
            sets += [(key, found, best.scores.ood[key]) for key, found in self.ood.items()]
            shown = [
                examples(self.model, key, found.images, found.features, scores, self.maps)
                for key, found, scores in sets
            ]
        title = f"{self.label} on {self.suite.name}"
        return evaluation_page(
            title, notes, warnings, summary, self.results, name, ranked_by, shown, about
        )


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
    tune: Tune = None,
    batch_size: BatchSize = DEFAULT,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    full_spectrum: bool = False,
    fpr_convention: str = "plain",
    seed: int = 0,
    store: Path | str | None = None,
    cache_images: Path | str | None = None,
    progress: SetProgress | None = None,
) -> EvaluationResult:
    """Extracts every set of a suite once, then fits, scores and measures each method.

    Args:
      model: see `jaxood.load_model`; None: the one that belongs to the suite.
      suite: a `jaxood.Suite`, as `jaxood.suite(name, root)` gives it; or the name of one that needs
        no root ("digits", "photos").
      methods: names, composed with "+", or objects. Each is also shown beside its plain
        counterpart, the same score without view and transforms.
      settings: parameters by part and name: `{"knn": {"k": 50}}`.
      sweeps: several values by part and name, each a method of its own.
      tune: several values by part and name, `{"knn": {"k": [10, 50]}}`, for methods given as text;
        or "openood", for those that OpenOOD tries of each part; or a list of both. Of all
        combinations of what a method leaves open the one with the highest AUROC of the suite's ID
        against its OOD validation images is evaluated. Where a parameter changes what is computed
        of an image (ODIN's), that is computed for each value, of validation images and those that
        the method is fitted on.
      batch_size: images a step over all devices; "auto": as many as they hold.
      bank_fraction: of the training images, drawn with `seed`, that methods are fitted on.
      balanced_bank: draws as many of each class.
      full_spectrum: scores covariate-shifted ID sets too, and measures a second time with all of
        them counted as in distribution (full-spectrum OOD detection, as in OpenOOD).
      fpr_convention: of FPR95: "plain", "openood", "nnguide" or "sfp".
      seed: of every random draw.
      store: folder where extracted features are kept, for an interrupted run to go on and for
        other methods on the same images.
      cache_images: folder where decoded images are kept, as a model of this input size takes them,
        for runs that follow; n x crop x crop x 3 bytes.
      progress: given a set's name, returns what is told (images done, images in all); then once
        more for fits and scores, where an image counts once a method.

    Returns:
      Results of all methods that could be fitted and scored; what went wrong with the others.

    Raises:
      UsageError: what can be known before the pass is said before it; and when no method is left.
    """
    families = check_request(methods, settings, sweeps, fpr_convention, seed, tune)
    candidates = candidates_of(families)
    suite = suite_of(suite)
    require_sets(suite, candidates, full_spectrum)
    if tune is not None:
        require_validation(suite)
    model = load_model(model_of_suite(suite.name) if model is None else model)
    for method in candidates:
        method.check_head(model.head)
    suite = _numbered(suite, model)
    model = names_of_folders(model, suite.train, suite.id_test)
    known = suite.id_test
    if known.labels is not None and known.labels_are_classes:
        check_labels(known.labels, model.classes, "id_test")
    train, bank, validation = fit_sets(suite, candidates, model, bank_fraction, seed, balanced_bank)
    foreign = None
    if tune is not None:
        validation, foreign = suite.id_validation, suite.ood_validation
    runner = Runner(model, cache_images=cache_images)
    every_part = (*_maps_of(candidates), *_extractors_of(candidates))
    batch_size = runner.check(every_part, batch_size)
    chosen_shifted = suite.shifted if full_spectrum else {}
    tested = [suite.id_test, *chosen_shifted.values(), *suite.ood.values()]
    every = [train, validation, foreign, *tested]
    require_same_images(every)
    shares = [own_share(images) for images in every if images is not None]
    require_space(shares, cache_images, model.preprocessing)

    def extracted(
        images: ImageSet, name: str, methods: Sequence[Method], maps: Sequence[Extractor] = ()
    ) -> SetFeatures:
        features = runner.extract(
            images,
            (*maps, *_extractors_of(methods)),
            batch_size=batch_size,
            seed=seed,
            store=Path(store) if store else None,
            progress=progress(name) if progress else None,
        )
        return SetFeatures(images, features)

    has_validation = suite.id_validation is not None
    learning = {
        split: [method for method in candidates if method.fitted_on(split, has_validation)]
        for split in SPLITS
    }
    trying = [one for family in families if len(family.candidates) > 1 for one in family.candidates]
    fitted_on = held_out = tuned_on = tuning = None
    if train is not None:
        fitted_on = extracted(train, "train", learning["train"])
    if validation is not None:
        held_out = extracted(validation, "validation", [*learning["validation"], *trying])
    if foreign is not None and held_out is not None:
        tuned_on = extracted(foreign, "OOD validation", trying)
        tuning = tuned(runner, families, (fitted_on, held_out), held_out, tuned_on)
    chosen = with_plain(tuning.methods) if tuning else candidates
    maps = _maps_of(chosen)
    id_test = extracted(suite.id_test, suite.id_test.name, chosen, maps)
    shifted = {
        name: extracted(images, name, chosen, maps) for name, images in chosen_shifted.items()
    }
    ood = {name: extracted(images, name, chosen, maps) for name, images in suite.ood.items()}
    results, failures = scored(
        runner,
        chosen,
        (fitted_on, held_out),
        TestedSets(id_test, ood, shifted),
        fpr_convention=fpr_convention,
        seed=seed,
        progress=progress(f"fits and scores of {_counted(chosen)}") if progress else None,
    )
    accuracies = {
        name: tables.accuracy(one.images, one.features.indices, one.features.logits)
        for name, one in {suite.id_test.name: id_test, **shifted}.items()
    }
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
            | ({"validation": held_out.features} if held_out else {})
            | ({"OOD validation": tuned_on.features} if tuned_on else {})
            | {"in distribution": id_test.features}
            | {f"shifted set {name}": found.features for name, found in shifted.items()}
            | {f"OOD set {name}": found.features for name, found in ood.items()}
        ),
        accuracies={name: top for name, top in accuracies.items() if top is not None},
        fpr_convention=fpr_convention,
        seed=seed,
        label=model.label,
        maps=tuple(one.key for one in maps),
        settings={
            "suite": suite.name,
            "methods": [method.name for method in chosen],
            "tune": tune,
            "batch_size": batch_size,
            "bank_fraction": bank_fraction,
            "balanced_bank": balanced_bank,
            "full_spectrum": full_spectrum,
            "fitted_on": splits(suite, chosen),
            "fpr_convention": fpr_convention,
            "seed": seed,
        },
        validation=held_out,
        shifted=shifted,
        ood_validation=tuned_on,
        tuning=tuning,
    )


def _counted(methods: Sequence[Method]) -> str:
    """One by its name, several by their number."""
    return methods[0].name if len(methods) == 1 else f"{len(methods)} methods"


def _maps_of(methods: Sequence[Method]) -> tuple[Extractor, ...]:
    """What tells where the features that views give come from."""
    found = (method.source.map for method in methods if method.source)
    return tuple({one.key: one for one in found if one}.values())


def _extractors_of(methods: Sequence[Method]) -> tuple[Extractor, ...]:
    found = {key: one for method in methods for key, one in method.extractors.items()}
    return tuple(found.values())


def _numbered(suite: Suite, model: LoadedModel) -> Suite:
    """The suite with the labels of its in-distribution images as the model numbers classes.

    Raises:
      UsageError: for a model of another number of classes than the suite's.
    """
    wanted = f"{suite.classes}, to which the labels of {suite.name} belong"
    right = suite.classes in (None, model.classes)
    require(right, "model", f"{model.name} with {model.classes} classes", wanted)

    names = model.class_names
    train, validation = suite.train, suite.id_validation
    return replace(
        suite,
        train=None if train is None else numbered_by(train, names),
        id_validation=None if validation is None else numbered_by(validation, names),
        id_test=numbered_by(suite.id_test, names),
        shifted={name: numbered_by(images, names) for name, images in suite.shifted.items()},
    )
