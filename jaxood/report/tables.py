"""The results of an evaluation as a table to read, and as rows for files."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.data.images import ImageSet
from jaxood.files import whole_file, write_whole
from jaxood.metrics.ood import Interval, Metrics
from jaxood.report.manifest import write_json

MEAN = "mean"


class Scores(NamedTuple):
    """One score an image, higher for in distribution.

    Attributes:
      id: of the ID test set.
      ood: of each OOD set, by its name.
    """

    id: Float[np.ndarray, " n"]
    ood: Mapping[str, Float[np.ndarray, " m"]]


@dataclass(frozen=True)
class MethodResult:
    """One method on one suite.

    Attributes:
      method: its name.
      plain: name of the same score without view and transforms, where there are any.
      metrics: by OOD set.
    """

    method: str
    plain: str | None
    scores: Scores
    metrics: Mapping[str, Metrics]

    def mean(self, column: str) -> float:
        """The plain mean of a metric over the OOD sets."""
        return float(np.mean([getattr(found, column) for found in self.metrics.values()]))


def table(results: Sequence[MethodResult], convention: str = "plain") -> str:
    """A block a method, a row an OOD set and their mean, in per cent; gains over the plain one."""
    methods = {result.method: result for result in results}
    fpr = "FPR95" if convention == "plain" else f"FPR95 ({convention})"
    names = max(len(name) for name in [*methods, "method"])
    sets = max(len(name) for name in [*results[0].metrics, "OOD set", MEAN])
    head = f"{'method':<{names}}  {'OOD set':<{sets}}  {'AUROC [95 %]':<22}{fpr + ' [95 %]':<22}"
    lines = [head + f"{'AUPR-in':>8}{'AUPR-out':>9}{'DTACC':>8}"]
    for result in results:
        lines.append("-" * len(lines[0]))
        for row, (name, found) in enumerate(result.metrics.items()):
            lines.append(
                f"{result.method if row == 0 else '':<{names}}  {name:<{sets}}  "
                f"{_with_interval(found.auroc, found.auroc_interval):<22}"
                f"{_with_interval(found.fpr95, found.fpr95_interval):<22}"
                f"{100 * found.aupr_in:>8.2f}{100 * found.aupr_out:>9.2f}{100 * found.dtacc:>8.2f}"
            )
        if len(result.metrics) > 1:
            lines.append(
                f"{'':<{names}}  {MEAN:<{sets}}  "
                f"{100 * result.mean('auroc'):6.2f}{'':16}{100 * result.mean('fpr95'):6.2f}{'':16}"
                f"{100 * result.mean('aupr_in'):>8.2f}{100 * result.mean('aupr_out'):>9.2f}"
                f"{100 * result.mean('dtacc'):>8.2f}"
            )
        if result.plain in methods:
            plain = methods[result.plain]
            auroc, fpr95 = (
                100 * (result.mean(column) - plain.mean(column)) for column in ("auroc", "fpr95")
            )
            lines.append(
                f"{'':<{names}}  {'vs ' + plain.method:<{sets}}  {auroc:+6.2f}{'':16}{fpr95:+6.2f}"
            )
    return "\n".join(lines)


def metric_rows(results: Sequence[MethodResult], convention: str = "plain") -> list[dict]:
    """A row a method and OOD set, and their mean; all but the counts in [0, 1]."""
    return [row for result in results for row in _rows(result, convention)]


def write_metrics(folder: Path, results: Sequence[MethodResult], convention: str = "plain") -> None:
    """`metric_rows` as metrics.csv and metrics.json."""
    rows = metric_rows(results, convention)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "metrics.csv", text.getvalue().encode())
    write_json(folder / "metrics.json", rows)


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


def set_keys(id_name: str, ood_names: Iterable[str], train: bool = True) -> dict:
    """What sets are called in files, by role and name: "train", `id_name`, the OOD sets' names.

    Where two sets would be called the same, all are preceded by their role: "train/train",
    "id/NAME", "ood/NAME".

    Returns:
      Keys of ("train", "train") if there is one, ("id", `id_name`) and ("ood", each name).
    """
    roles = [("train", "train")] if train else []
    roles += [("id", id_name), *(("ood", name) for name in ood_names)]
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
        for name, scores in result.scores.ood.items():
            arrays[f"scores/{result.method}/{keys['ood', name]}"] = scores
    for images in sets:
        arrays[f"ids/{images.key}"] = np.array(images.ids)
        arrays[f"predicted/{images.key}"] = images.predicted
        if images.labels is not None:
            arrays[f"labels/{images.key}"] = images.labels
    return arrays


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
    return float(np.mean(logits.argmax(axis=1) == images.labels[indices]))


def _rows(result: MethodResult, convention: str) -> Iterator[dict]:
    n_id = len(result.scores.id)
    for name, found in result.metrics.items():
        yield {
            "method": result.method,
            "ood": name,
            "n_id": n_id,
            "n_ood": len(result.scores.ood[name]),
            "auroc": found.auroc,
            "auroc_low": found.auroc_interval.low,
            "auroc_high": found.auroc_interval.high,
            "fpr95": found.fpr95,
            "fpr95_low": found.fpr95_interval.low,
            "fpr95_high": found.fpr95_interval.high,
            "fpr95_convention": convention,
            "aupr_in": found.aupr_in,
            "aupr_out": found.aupr_out,
            "dtacc": found.dtacc,
        }
    columns = ("auroc", "fpr95", "aupr_in", "aupr_out", "dtacc")
    blank = dict.fromkeys(("auroc_low", "auroc_high", "fpr95_low", "fpr95_high"))
    counts = {"n_id": n_id, "n_ood": sum(len(result.scores.ood[name]) for name in result.metrics)}
    yield (
        {"method": result.method, "ood": MEAN, "fpr95_convention": convention}
        | counts
        | blank
        | {column: result.mean(column) for column in columns}
    )


def _with_interval(value: float, interval: Interval) -> str:
    return f"{100 * value:6.2f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
