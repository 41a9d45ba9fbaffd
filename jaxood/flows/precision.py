"""What arithmetic of another width changes: the same run twice, image by image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.errors import UsageError
from jaxood.flows.evaluation import EvaluationResult
from jaxood.report.rows import write_csv


class Change(NamedTuple):
    """Of the scores of one method on one set.

    Attributes:
      rank_correlation: Spearman's, between both runs; 1 where the order of images is the same.
      auroc: what it gains in the other run, in points of 100; None for the ID set.
    """

    method: str
    set: str
    rank_correlation: float
    auroc: float | None


def compare(result: EvaluationResult, other: EvaluationResult) -> list[Change]:
    """What `other` changes, by method and set; for two runs on the same images.

    Raises:
      UsageError: when they have not scored the same images.
    """
    for key, found in result.sets.items():
        again = other.sets.get(key)
        if again is None or not np.array_equal(found.features.indices, again.features.indices):
            raise UsageError("other", f"other images in {key}", "a run on the same images")
    name, found_by = result.id_test.images.name, {one.method: one for one in other.results}
    rows = []
    for one in result.results:
        if one.method not in found_by:
            continue
        theirs = found_by[one.method]
        rows.append(Change(one.method, name, _ranks(one.scores.id, theirs.scores.id), None))
        for ood, metrics in one.metrics.items():
            gained = 100 * (theirs.metrics[ood].auroc - metrics.auroc)
            ranks = _ranks(one.scores.ood[ood], theirs.scores.ood[ood])
            rows.append(Change(one.method, ood, ranks, gained))
    return rows


def _ranks(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; 1 for scores that are all the same in both."""
    from scipy.stats import rankdata

    one, two = (rankdata(scores) - (len(scores) + 1) / 2 for scores in (first, second))
    size = np.sqrt((one @ one) * (two @ two))
    return float(one @ two / size) if size else float(np.array_equal(one, two))


def told(rows: Sequence[Change], first: str, second: str) -> str:
    """As a table of 80 columns."""
    lines = [f"{second} instead of {first}:", f"{'':<28}{'set':<20}{'rank corr.':>12}{'AUROC':>9}"]
    for row in rows:
        gained = "" if row.auroc is None else f"{row.auroc:+.2f}"
        lines.append(
            f"{row.method[:27]:<28}{row.set[:19]:<20}{row.rank_correlation:>12.5f}{gained:>9}"
        )
    return "\n".join(lines)


def write_changes(path: Path, rows: Sequence[Change]) -> None:
    """As CSV, whole or not at all."""
    write_csv(path, Change._fields, rows)
