"""Metrics of runs as rows: one number a row, with all that says what it is of.

Means are not among them: what a reader wants the mean of is left to the reader, or to
`jaxood.report.paper`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxood.errors import UsageError, require
from jaxood.files import printable, write_whole
from jaxood.metrics.ood import Metrics
from jaxood.report.manifest import write_json
from jaxood.report.tables import MethodResult

ACCURACY = "accuracy"  # of the ID test set; its rows have no method
FULL_SPECTRUM = "full-spectrum "  # before the name of a metric
_PLAIN = ("auroc", "fpr95", "aupr_in", "aupr_out", "dtacc")


class Run(NamedTuple):
    """What the rows of one evaluation have in common.

    Attributes:
      model: what it is called; several weights may be, as those of several trainings are.
      weights: a hash of the weights file.
      groups: names of OOD sets by group.
      fpr_convention: of FPR95.
    """

    model: str
    weights: str
    suite: str
    seed: int
    groups: Mapping[str, Sequence[str]]
    fpr_convention: str


class Row(NamedTuple):
    """One number.

    Attributes:
      set: the OOD set; the ID test set for an accuracy.
      group: of the OOD set; "" where it has none.
      method: "" for an accuracy.
      metric: "fpr95 (openood)" where FPR95 follows another convention than the plain one;
        "full-spectrum auroc" where ID is the test set and its shifted versions together.
      value, low, high: in [0, 1]; ends of the bootstrap interval, None where there is none.
      n_id, n_ood: images.
    """

    model: str
    weights: str
    suite: str
    set: str
    group: str
    method: str
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    n_id: int
    n_ood: int

    @property
    def key(self) -> tuple:
        """What the number is of."""
        return self[: Row._fields.index("value")]


def rows_of(run: Run, results: Sequence[MethodResult]) -> list[Row]:
    """A row a metric, OOD set and method."""
    return [row for result in results for row in _of_method(run, result)]


def accuracy_row(run: Run, id_name: str, accuracy: float, images: int) -> Row:
    """Top-1 of the ID test set."""
    about = run.model, run.weights, run.suite, id_name, "", "", run.seed
    return Row(*about, ACCURACY, accuracy, None, None, images, 0)


def _of_method(run: Run, result: MethodResult) -> Iterator[Row]:
    group_of = {name: group for group, names in run.groups.items() for name in names}
    shifted = sum(map(len, result.scores.shifted.values()))
    n_id = len(result.scores.id)
    spectra = (("", n_id, result.metrics), (FULL_SPECTRUM, n_id + shifted, result.full_spectrum))
    for prefix, known, by_set in spectra:
        for name, found in by_set.items():
            about = run.model, run.weights, run.suite, name, group_of.get(name, "")
            counts = known, len(result.scores.ood[name])
            for metric, value, low, high in _numbers(found, run.fpr_convention):
                key = *about, result.method, run.seed, prefix + metric
                yield Row(*key, value, low, high, *counts)


def _numbers(found: Metrics, convention: str) -> Iterator[tuple]:
    for metric in _PLAIN:
        interval = getattr(found, f"{metric}_interval", (None, None))
        other = metric == "fpr95" and convention != "plain"
        named = f"{metric} ({convention})" if other else metric
        yield named, getattr(found, metric), *interval


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """metrics.csv and metrics.json."""
    write_csv(folder / "metrics.csv", Row._fields, rows)
    write_json(folder / "metrics.json", [row._asdict() for row in rows])


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Rows under the names of their columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def read_rows(file: Path) -> list[Row]:
    """What `write_rows` wrote as metrics.json.

    Raises:
      UsageError: for a file that is not there, or another one.
    """
    try:
        entries = json.loads(file.read_bytes())
        rows = [Row(**entry) for entry in entries]
    except OSError as error:
        got = f"{printable(file)} ({error.strerror})"
        raise UsageError("folders", got, "the folder of an evaluation") from None
    except (ValueError, TypeError, RecursionError):
        got = f"{printable(file)}, which has other columns"
        raise UsageError("folders", got, "what this version's evaluate wrote") from None
    wanted = "an evaluation with at least one method that gave scores"
    require(bool(rows), "folders", f"{printable(file)} with no row in it", wanted)
    for row in rows:
        _check(row, file)
    return rows


def _check(row: Row, file: Path) -> None:
    texts = (row.model, row.weights, row.suite, row.set, row.group, row.method, row.metric)
    numbers = (row.value, *(end for end in (row.low, row.high) if end is not None))
    fits = all(isinstance(text, str) for text in texts)
    fits = fits and all(isinstance(n, int) and n >= 0 for n in (row.seed, row.n_id, row.n_ood))
    fits = fits and all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
    if not fits:
        got = f"{printable(file)}: {str(tuple(row))[:200]}"
        raise UsageError("folders", got, "texts, counts and finite numbers")
