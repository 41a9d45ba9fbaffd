"""The results of an evaluation as a table to read, and as rows for files."""

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.data.images import ImageSet
from jaxood.errors import choose
from jaxood.files import whole_file, write_whole
from jaxood.metrics.ood import Interval, Metrics
from jaxood.outputs import top_classes

MEAN = "mean"
BOLD = "\x1b[1m{}\x1b[0m"


class Scores(NamedTuple):
    """One score an image, higher for in distribution.

    Attributes:
      id: of the ID test set.
      ood: of each OOD set, by its name.
      shifted: of each covariate-shifted ID set, by its name.
    """

    id: Float[np.ndarray, " n"]
    ood: Mapping[str, Float[np.ndarray, " m"]]
    shifted: Mapping[str, Float[np.ndarray, " s"]] = {}  # never changed

    def of(self, role: str, name: str) -> Float[np.ndarray, " n"] | None:
        """Those of one set; None where it is not scored, as the training set."""
        if role == "id":
            return self.id
        return {"ood": self.ood, "shifted": self.shifted}.get(role, {}).get(name)


@dataclass(frozen=True)
class MethodResult:
    """One method on one suite.

    Attributes:
      method: its name.
      plain: name of the same score without view and transforms, where there are any.
      metrics: by OOD set.
      full_spectrum: the same, with all covariate-shifted ID sets counted as in distribution
        beside the ID test set; empty where those were not scored.
    """

    method: str
    plain: str | None
    scores: Scores
    metrics: Mapping[str, Metrics]
    full_spectrum: Mapping[str, Metrics] = field(default_factory=dict)

    def mean(self, column: str) -> float:
        """The plain mean of a metric over the OOD sets."""
        return float(np.mean([getattr(found, column) for found in self.metrics.values()]))


def table(
    results: Sequence[MethodResult],
    convention: str = "plain",
    sort: str | None = None,
    bold: bool = False,
) -> str:
    """A block a method, a row an OOD set and their mean, in per cent; gains over the plain one.

    Args:
      sort: "auroc" or "fpr95": the best mean first; "method": by name; None: as they come.
      bold: the best of each set, for a terminal.
    """
    methods = {result.method: result for result in results}
    fpr = "FPR95 [95 %]" if convention == "plain" else f"FPR95 ({convention})"
    plains = [f"vs {result.plain}" for result in results if result.plain in methods]
    names = ["OOD set", MEAN, *results[0].metrics, *plains]
    width = max(map(len, names)) + 4
    head = f"{'OOD set':<{width}}{'AUROC [95 %]':<20}{fpr:<20}{'AUPR-in':>7}{'out':>8}{'DTACC':>8}"
    lines = [head, "-" * len(head)]

    best = _best(results) if bold and len(results) > 1 else {}

    def row(name: str, auroc: str, fpr95: str, *others: float, of: MethodResult) -> None:
        rest = "".join(f"{100 * value:>8.2f}" for value in others)[1:]
        columns = {"auroc": f"{auroc:<20}", "fpr95": f"{fpr95:<20}"}
        marked = [
            BOLD.format(text) if _value(of, name, column) in best.get((name, column), ()) else text
            for column, text in columns.items()
        ]
        lines.append(f"  {name:<{width - 2}}{''.join(marked)}{rest}".rstrip())

    for result in _ordered(results, sort):
        lines.append(result.method)
        for name, found in result.metrics.items():
            row(
                name,
                _with_interval(found.auroc, found.auroc_interval),
                _with_interval(found.fpr95, found.fpr95_interval),
                *(found.aupr_in, found.aupr_out, found.dtacc),
                of=result,
            )
        if len(result.metrics) > 1:
            auroc, fpr95 = (f"{100 * result.mean(column):6.2f}" for column in ("auroc", "fpr95"))
            others = map(result.mean, ("aupr_in", "aupr_out", "dtacc"))
            row(MEAN, auroc, fpr95, *others, of=result)
        if result.plain in methods:
            plain = methods[result.plain]
            auroc, fpr95 = (
                f"{100 * (result.mean(column) - plain.mean(column)):+6.2f}"
                for column in ("auroc", "fpr95")
            )
            row(f"vs {plain.method}", auroc, fpr95, of=result)
    return "\n".join(lines)


def _value(result: MethodResult, name: str, column: str) -> float | None:
    """What a row shows, before it is rounded; None for a row that compares methods."""
    if name in result.metrics:
        return getattr(result.metrics[name], column)
    return result.mean(column) if name == MEAN else None


def _best(results: Sequence[MethodResult]) -> dict[tuple[str, str], tuple[float]]:
    """The highest AUROC and the lowest FPR95 of each row."""
    found = {}
    for name in (*results[0].metrics, MEAN):
        for column, best in (("auroc", max), ("fpr95", min)):
            values = [_value(result, name, column) for result in results]
            found[name, column] = (best(value for value in values if value is not None),)
    return found


def _ordered(results: Sequence[MethodResult], sort: str | None) -> list[MethodResult]:
    if sort is None:
        return list(results)
    by = {
        "auroc": lambda result: -result.mean("auroc"),
        "fpr95": lambda result: result.mean("fpr95"),
        "method": lambda result: result.method,
    }
    return sorted(results, key=by[choose("sort", sort, by)])


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed NPZ, whole or not at all; equal arrays give equal bytes."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


class SetArrays(NamedTuple):
    """What scores.npz says of one set, a row a decodable image.

    Attributes:
      key: what the set is called there, see `set_keys`.
      predicted: the class with the largest logit.
    """

    key: str
    ids: Sequence[str]
    predicted: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"] | None


def set_keys(sets: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
    """What sets are called in files, by role and name: by their names.

    Where two sets would be called the same, all are preceded by their role: "train/train",
    "id/NAME", "ood/NAME".

    Args:
      sets: names by role: "train", "validation", "id", "shifted", "ood".
    """
    roles = [(role, name) for role, names in sets.items() for name in names]
    unique = len({name for _, name in roles}) == len(roles)
    return {(role, name): name if unique else f"{role}/{name}" for role, name in roles}


def score_arrays(
    results: Sequence[MethodResult],
    id_name: str,
    keys: Mapping[tuple[str, str], str],
    sets: Iterable[SetArrays],
) -> dict[str, np.ndarray]:
    """The arrays of scores.npz: scores/METHOD/SET, and ids, predicted and labels of each SET.

    Args:
      keys: as `set_keys` gives them.
    """
    arrays: dict[str, np.ndarray] = {}
    for result in results:
        arrays[f"scores/{result.method}/{keys['id', id_name]}"] = result.scores.id
        for role, named in (("shifted", result.scores.shifted), ("ood", result.scores.ood)):
            for name, scores in named.items():
                arrays[f"scores/{result.method}/{keys[role, name]}"] = scores
    for images in sets:
        arrays[f"ids/{images.key}"] = np.array(images.ids)
        arrays[f"predicted/{images.key}"] = images.predicted
        if images.labels is not None:
            arrays[f"labels/{images.key}"] = images.labels
    return arrays


def write_scores(
    path: Path,
    results: Sequence[MethodResult],
    keys: Mapping[tuple[str, str], str],
    sets: Iterable[SetArrays],
) -> None:
    """A CSV with a row an image that was scored, and a column a method.

    The columns before those: set, role ("id", "ood", "shifted"), id, label, predicted. Scores read
    back as the same float32.

    Args:
      keys: as `set_keys` gives them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "role", "id", "label", "predicted", *(r.method for r in results)])
    named = {key: about for about, key in keys.items()}
    for images in sets:
        role, name = named[images.key]
        scores = [found for r in results if (found := r.scores.of(role, name)) is not None]
        if not scores:
            continue
        labels = itertools.repeat("") if images.labels is None else images.labels
        about = itertools.repeat(name), itertools.repeat(role), images.ids, labels
        writer.writerows(zip(*about, images.predicted, *scores, strict=False))
    write_whole(path, text.getvalue().encode())


def accuracy(
    images: ImageSet, indices: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n k"]
) -> float | None:
    """Top-1 accuracy, or None where the labels are not the model's classes.

    Args:
      indices: of each row of the logits in the set.
    """
    if images.labels is None:
        return None
    if not images.labels_are_classes and images.labels.max() + 1 != logits.shape[1]:
        return None
    return float(np.mean(top_classes(logits) == images.labels[indices]))


def _with_interval(value: float, interval: Interval) -> str:
    return f"{100 * value:6.2f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
