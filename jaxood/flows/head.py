"""Gives a weights file a head: fitted on labelled images, or made of texts' embeddings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxood.data.cached import require_space
from jaxood.data.images import ImageSet
from jaxood.data.relabelled import numbered_by
from jaxood.data.shares import own_share, require_same_images
from jaxood.data.sources import image_set
from jaxood.data.suite import require_root
from jaxood.data.texts import read_texts
from jaxood.detectors import statistics
from jaxood.detectors.contract import check_labels
from jaxood.detectors.scoring import host_outputs
from jaxood.errors import UsageError, choose, require, require_seed
from jaxood.flows.sources import class_names_of
from jaxood.models.backbone import CosineClassifier
from jaxood.models.loading import (
    abstract_model,
    checked_names,
    load_backbone,
    network_of,
    parameter_shapes,
)
from jaxood.models.weights_file import WeightsInfo, checked_sha256, open_weights, write_weights
from jaxood.probes.class_mean import cosine_class_means, linear_class_means
from jaxood.probes.linear import Labelled as Rows
from jaxood.probes.linear import choose_linear, fit_linear
from jaxood.processes import is_first
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import skipped_lines
from jaxood.runner.runner import Runner, SetProgress

KINDS = ("linear", "class-mean")
HELD_OUT = 10  # one image of so many is, where no validation images are given
EMBEDDED_IN = 100.0  # CLIP's scale, where neither texts nor checkpoint tell another
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class HeadReport:
    """What a weights file with a new head holds.

    Attributes:
      train_accuracy: share of the training images that it classifies rightly; None of texts.
      validation_accuracy: of the validation images. Where those were held out of the training
        images, by a head that had not seen them; the head that is kept has.
    """

    output: Path
    info: WeightsInfo
    train_accuracy: float | None = None
    validation_accuracy: float | None = None

    def __str__(self) -> str:
        info, accuracies = self.info, (self.train_accuracy, self.validation_accuracy)
        lines = [f"{self.output}: {info.architecture}, {info.num_classes} classes"]
        lines.append(f"head: {info.head_from}")
        for name, share in zip(("training", "validation"), accuracies, strict=True):
            lines += [] if share is None else [f"{name} accuracy {100 * share:.2f} %"]
        return "\n".join(lines)


class Fitted(NamedTuple):
    """Attributes:
    arrays: by parameter path.
    told: how it was fitted.
    """

    arrays: Arrays
    told: str
    train_accuracy: float
    validation_accuracy: float


def head(
    weights: Path | str,
    output: Path | str,
    kind: str = "linear",
    *,
    train: Any = None,
    validation: Any = None,
    texts: Path | str | None = None,
    l2: float | None = None,
    classes: str | Path | Sequence[str] = (),
    root: Path | str | None = None,
    batch_size: BatchSize = DEFAULT,
    seed: int = 0,
    cache_images: Path | str | None = None,
    progress: SetProgress | None = None,
) -> HeadReport:
    """Writes a weights file with the backbone of another and a new head.

    Args:
      weights: made by `jaxood.convert`, with a head, which is left out, or without.
      kind: "linear", multinomial logistic regression on penultimate features; or "class-mean", the
        nearest class mean.
      train: labelled images: a folder with a sub-folder for each class, a list, or an image set.
      validation: other ones, on which the strength of the regularisation, or the scale of the
        logits, is chosen. None: one in ten of each class of `train`, drawn with `seed`; with what
        was chosen the head is then fitted on all.
      texts: instead of images, a file of embeddings in the space of the backbone's, such as
        CLIP's; see `jaxood.data.texts`.
      l2: strength of the regularisation of "linear", instead of one that is chosen.
      classes: names in the order of the logits, or a file of them; else those of the folders, the
        list or the texts.
      root: of the paths in lists.

    Raises:
      UsageError: when images, labels, texts or values are missing or wrong.
    """
    require_seed("seed", seed)
    choose("kind", kind, KINDS)
    weights, output = Path(weights), Path(output)
    names = class_names_of(classes)
    if (train is None) == (texts is None):
        got = "nothing" if train is None else "images and texts"
        raise UsageError("train", got, "labelled training images, or texts instead")
    if l2 is not None:
        require(l2 > 0 and kind == "linear", "l2", l2, "above 0, for a linear head")
    if texts is not None:
        require(validation is None, "validation", "images", "none with texts")
        return _of_texts(weights, output, Path(texts), names)
    require_root([given for given in (train, validation) if isinstance(given, str | Path)], root)
    known = numbered_by(image_set(train, "train", "train", root), names)
    known, names = _labelled(known, "train", names)
    sets, kept = {"train": known}, None
    if validation is None:
        kept = _held_out(known, seed)
    else:
        others = image_set(validation, "validation", "validation", root)
        sets["validation"], _ = _labelled(numbered_by(others, names), "validation", names)
    model, info = load_backbone(weights)
    runner = Runner(model, cache_images=cache_images)
    batch_size = runner.check((), batch_size)
    require_same_images(sets.values())
    shares = [own_share(images) for images in sets.values()]
    require_space(shares, cache_images, model.preprocessing)
    log, cosine = logging.getLogger("jaxood"), _is_cosine(info)
    found: dict[str, Rows] = {}
    for name, images in sets.items():
        told = progress(name) if progress else None
        features = runner.extract(images, batch_size=batch_size, seed=seed, progress=told)
        for line in skipped_lines(name, features.skipped, len(images)):
            log.warning("%s", line)
        rows = features.pooled
        if not cosine:
            rows = np.asarray(host_outputs(model.head, rows, features.logits).penultimate)
        found[name] = Rows(rows, np.asarray(images.labels)[features.indices])
        if kept is not None:
            kept = kept[features.indices]
    fitted = _fit(kind, found["train"], found.get("validation"), kept, len(names), l2, cosine)
    source = f"{len(found['train'].labels)} images, {known.fingerprint()[:16]}"
    own = "linear" if cosine and kind == "linear" else ""
    new = _info(info, names, f"{fitted.told}, on {source}", own)
    _write(weights, output, new, fitted.arrays)
    return HeadReport(output, new, fitted.train_accuracy, fitted.validation_accuracy)


def _labelled(
    images: ImageSet, argument: str, names: tuple[str, ...]
) -> tuple[ImageSet, tuple[str, ...]]:
    """The images and the names of their classes, when every class has some.

    Raises:
      UsageError: for images without classes, or classes without images.
    """
    if images.labels is None:
        wanted = "a folder with a sub-folder for each class, or a list with labels"
        raise UsageError(argument, "images without classes", wanted)
    count = len(names or images.class_names) or int(images.labels.max()) + 1
    labels = check_labels(images.labels, count, argument)
    if argument != "train":
        return images, names
    require(count > 1, argument, "images of one class", "two classes or more")
    empty = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
    got = f"{count} classes, {len(empty)} of them without images, such as {empty[:1]}"
    remedy = "Numbers and WordNet ids stand for themselves; name folders otherwise"
    require(not len(empty), argument, got, "images of every class", remedy)
    return images, checked_names(names or images.class_names, count)


def _held_out(images: ImageSet, seed: int) -> np.ndarray:
    """Which training images are left out at first: one in ten of each class, at least one of two.

    Raises:
      UsageError: when no class has two.
    """
    labels = np.asarray(images.labels)
    chosen = np.zeros(len(labels), bool)
    order = np.random.default_rng(seed).permutation(len(labels))
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        chosen[of_class[: max(len(of_class) // HELD_OUT, min(len(of_class) - 1, 1))]] = True
    got, wanted = "one image a class", "more, or validation images beside them"
    require(chosen.any(), "train", got, wanted)
    return chosen


def _is_cosine(info: WeightsInfo) -> bool:
    """Whether the architecture's own head is one of columns."""
    return isinstance(abstract_model(info.architecture, 0).classifier, CosineClassifier)


def _fit(
    kind: str,
    train: Rows,
    validation: Rows | None,
    kept: np.ndarray | None,
    classes: int,
    l2: float | None,
    cosine: bool,
) -> Fitted:
    """The head of all training images, by what is best on those for validation."""
    seen = train
    if kept is not None:
        seen, validation = (Rows(train.rows[part], train.labels[part]) for part in (~kept, kept))
    present = len(np.unique(seen.labels))
    wanted = "images of every class that can be decoded"
    require(present == classes, "train", f"{present} classes of {classes}", wanted)
    assert validation is not None
    if kind == "linear":
        probe = (
            choose_linear(seen, validation, classes)
            if l2 is None
            else fit_linear(seen, classes, l2)
        )
        final: Any = probe if kept is None else fit_linear(train, classes, probe.l2, probe)
        first: Any = probe
        told = f"linear probe, l2 {probe.l2:g}" + ("" if final.converged else ", not converged")
    else:
        fit = cosine_class_means if cosine else linear_class_means
        first = fit(seen, validation)
        final = first if kept is None else fit(train, None, first.scale)
        told = f"class means, scale {first.scale:.3g}"
    arrays = {"classifier/kernel": final.kernel, "classifier/bias": final.bias}
    if cosine and kind != "linear":
        arrays = _columns(final.kernel, final.scale)
    return Fitted(arrays, told, _accuracy(final, train), _accuracy(first, validation))


def _accuracy(probe: Any, data: Rows) -> float:
    """Share of the rows whose largest logit is their class's; no length of a row changes it."""
    right = 0
    for part, block in statistics.blocks(data.rows):
        logits = block @ probe.kernel + probe.bias
        right += int((logits.argmax(axis=1) == data.labels[part]).sum())
    return right / len(data.labels)


def _columns(columns: np.ndarray, scale: float, negatives: np.ndarray | None = None) -> Arrays:
    """The parameters of a cosine head."""
    negatives = np.zeros((len(columns), 0)) if negatives is None else negatives
    return {
        "classifier/columns": columns,
        "classifier/negatives": negatives,
        "classifier/scale": np.asarray(scale),
    }


def _of_texts(weights: Path, output: Path, file: Path, names: tuple[str, ...]) -> HeadReport:
    """The weights file with texts' embeddings as its head."""
    source, info = open_weights(weights)
    checked_sha256(weights)
    got = f"texts for {info.architecture}, which has no space of images and texts"
    require(_is_cosine(info), "texts", got, "a CLIP image tower")
    texts = read_texts(file)
    channels, _ = parameter_shapes(abstract_model(info.architecture, 0))["classifier/columns"]
    k, found = texts.classes.shape
    wanted = f"{channels}, as the images' have"
    require(found == channels, "texts", f"embeddings of {found} numbers", wanted)
    scale = texts.scale
    # One that class means were fitted with is not the checkpoint's.
    if scale is None and not info.head and not info.head_from.startswith("class means"):
        scale = float(source.get_tensor("classifier/scale"))
    names = checked_names(names or texts.names, k)
    negatives = None if texts.negatives is None else texts.negatives.T
    arrays = _columns(texts.classes.T, scale or EMBEDDED_IN, negatives)
    m = arrays["classifier/negatives"].shape[1]
    told = f"texts of {k} classes and {m} negatives, scale {scale or EMBEDDED_IN:g}"
    new = replace(_info(info, names, told), negatives=m)
    _write(weights, output, new, arrays)
    return HeadReport(output, new)


def _info(info: WeightsInfo, names: tuple[str, ...], told: str, kind: str = "") -> WeightsInfo:
    return replace(
        info,
        num_classes=len(names),
        class_names=names,
        head=kind,
        negatives=0,
        head_from=told,
        converter=f"jaxood {version('jaxood')}",
    )


def _write(weights: Path, output: Path, info: WeightsInfo, arrays: Mapping[str, np.ndarray]):
    """The arrays of one file with those of a head, one at a time; the first process writes."""
    if not is_first():
        return
    source, _ = open_weights(weights)

    def value(path: str) -> np.ndarray:
        return arrays[path] if path in arrays else source.get_tensor(path)

    write_weights(output, parameter_shapes(network_of(info)), value, info)
