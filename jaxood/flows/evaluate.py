"""Tells in-distribution from out-of-distribution images by many methods, and reports how well.

One pass over each set of a suite; then every method is fitted and scored on small arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
from jaxood.flows.evaluation import EvaluationResult
from jaxood.flows.fitting import fit_sets, require_sets, splits
from jaxood.flows.overlap import shared
from jaxood.flows.request import MethodSource, Tune, candidates_of, check_request, with_plain
from jaxood.flows.scoring import SetFeatures, TestedSets, scored
from jaxood.flows.sources import ModelSource, load_model, model_of_suite, names_of_folders
from jaxood.flows.tuning import require_validation, tuned
from jaxood.models.registry import LoadedModel
from jaxood.report import tables
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.runner import Runner, SetProgress


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
