"""The results of an evaluation as a table to read and as files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxood.data.images import ImageSet
from jaxood.evaluation.metrics import Metrics
from jaxood.manifest import write_json
from jaxood.store import Features, write_whole

MEAN = "mean"


@dataclass(frozen=True)
class MethodResult:
    """One method on one suite.

    Attributes:
      baseline: name of the same score without view and transforms, where there are any.
      scores: one an image, by set; the ID test set under `id_name`.
      metrics: by OOD set.
    """

    name: str
    baseline: str | None
    scores: dict[str, Float[np.ndarray, " n"]]
    metrics: dict[str, Metrics]

    def mean(self, column: str) -> float:
        """The plain mean of a metric over the OOD sets."""
        return float(np.mean([getattr(own, column) for own in self.metrics.values()]))


def table(results: Sequence[MethodResult], convention: str) -> str:
    """A block a method, a row an OOD set and their mean, in per cent; gains over the baseline."""
    methods = {result.name: result for result in results}
    fpr = "FPR95" if convention == "plain" else f"FPR95 ({convention})"
    names = max(len(name) for name in [*methods, "method"])
    sets = max(len(name) for name in [*results[0].metrics, "OOD set", MEAN])
    head = f"{'method':<{names}}  {'OOD set':<{sets}}  {'AUROC [95 %]':<22}{fpr + ' [95 %]':<22}"
    lines = [head + f"{'AUPR-in':>8}{'AUPR-out':>9}{'DTACC':>8}"]
    for result in results:
        lines.append("-" * len(lines[0]))
        for row, (name, own) in enumerate(result.metrics.items()):
            lines.append(
                f"{result.name if row == 0 else '':<{names}}  {name:<{sets}}  "
                f"{_with_interval(own.auroc, own.auroc_interval):<22}"
                f"{_with_interval(own.fpr95, own.fpr95_interval):<22}"
                f"{100 * own.aupr_in:>8.2f}{100 * own.aupr_out:>9.2f}{100 * own.dtacc:>8.2f}"
            )
        if len(result.metrics) > 1:
            means = {column: 100 * result.mean(column) for column in Metrics._fields[::2]}
            lines.append(
                f"{'':<{names}}  {MEAN:<{sets}}  {means['auroc']:6.2f}{'':16}{means['fpr95']:6.2f}"
                f"{'':16}{means['aupr_in']:>8.2f}{100 * result.mean('aupr_out'):>9.2f}"
                f"{means['dtacc']:>8.2f}"
            )
        if result.baseline in methods:
            gain = {
                column: 100 * (result.mean(column) - methods[result.baseline].mean(column))
                for column in ("auroc", "fpr95")
            }
            lines.append(
                f"{'':<{names}}  {'vs ' + result.baseline:<{sets}}  "
                f"{gain['auroc']:+6.2f}{'':16}{gain['fpr95']:+6.2f}"
            )
    return "\n".join(lines)


def write_metrics(folder: Path, results: Sequence[MethodResult], convention: str) -> None:
    """metrics.csv, a row a method and OOD set with their mean, and the same as metrics.json."""
    rows = [row for result in results for row in _rows(result, convention)]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "metrics.csv", text.getvalue().encode())
    write_json(folder / "metrics.json", rows)


def write_scores(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """scores.npz; equal arrays give equal bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_whole(folder / "scores.npz", content.getvalue())


def accuracy(images: ImageSet, features: Features) -> float | None:
    """Top-1 accuracy, or None where the labels are not the model's classes."""
    if images.labels is None:
        return None
    labels = images.labels[features.indices]
    classes = features.logits.shape[1]
    if not images.labels_are_classes and images.labels.max() + 1 != classes:
        return None
    return float(np.mean(features.logits.argmax(axis=1) == labels))


def _rows(result: MethodResult, convention: str):
    n_id = len(next(iter(result.scores.values())))
    for name, own in result.metrics.items():
        yield {
            "method": result.name,
            "ood": name,
            "n_id": n_id,
            "n_ood": len(result.scores[name]),
            "auroc": own.auroc,
            "auroc_low": own.auroc_interval.low,
            "auroc_high": own.auroc_interval.high,
            "fpr95": own.fpr95,
            "fpr95_low": own.fpr95_interval.low,
            "fpr95_high": own.fpr95_interval.high,
            "fpr95_convention": convention,
            "aupr_in": own.aupr_in,
            "aupr_out": own.aupr_out,
            "dtacc": own.dtacc,
        }
    columns = ("auroc", "fpr95", "aupr_in", "aupr_out", "dtacc")
    blank = dict.fromkeys(("auroc_low", "auroc_high", "fpr95_low", "fpr95_high"))
    counts = {"n_id": n_id, "n_ood": sum(len(result.scores[name]) for name in result.metrics)}
    yield (
        {"method": result.name, "ood": MEAN, "fpr95_convention": convention}
        | counts
        | blank
        | {column: result.mean(column) for column in columns}
    )


def _with_interval(value: float, interval) -> str:
    return f"{100 * value:6.2f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
