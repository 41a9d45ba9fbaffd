"""The numbers of one run or of many: joined, shown as tables for a paper, and kept."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxood.errors import UsageError
from jaxood.files import printable, write_whole
from jaxood.report.paper import PaperTable, paper_tables
from jaxood.report.rows import Row, read_rows, write_rows

METRICS = "metrics.json"


@dataclass(frozen=True)
class Report:
    """Numbers of runs.

    Attributes:
      conflicts: how many numbers differed from the one of the same model, weights, suite, set,
        method and seed that came first.
      failures: what went wrong, by the name of a run that has no numbers.
    """

    rows: tuple[Row, ...]
    conflicts: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)

    def tables(
        self, metrics: Sequence[str] = (), columns: str = "sets", sort: str | None = None
    ) -> list[PaperTable]:
        """A table a suite, see `jaxood.report.paper.paper_tables`.

        Args:
          metrics: (): AUROC and FPR95, by whatever convention the runs had.
        """
        usual = [name for name in self.metrics if name == "auroc" or name.startswith("fpr95")]
        return paper_tables(self.rows, metrics or usual, columns, sort)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, as rows have them."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the tables must know besides."""
        lines = [f"{name}: no result: {reason}" for name, reason in self.failures.items()]
        if self.conflicts:
            lines.append(f"warning: {self.conflicts} numbers differ between runs of the same name")
        return lines

    def __str__(self) -> str:
        found = self.tables(columns="groups") if self.rows else []
        return "\n\n".join([*map(str, found), *self.remarks])

    def save(
        self,
        folder: Path | str,
        metrics: Sequence[str] = (),
        columns: str = "sets",
        sort: str | None = None,
    ) -> Path:
        """Writes metrics.csv, metrics.json (all rows), table.md and table.tex (see `tables`)."""
        folder = Path(folder)
        found = self.tables(metrics, columns, sort)
        write_rows(folder, self.rows)
        for name, form in (("table.md", PaperTable.markdown), ("table.tex", PaperTable.latex)):
            write_whole(folder / name, ("\n\n".join(map(form, found)) + "\n").encode())
        return folder


def load_report(*folders: Path | str) -> Report:
    """The numbers of all runs in these folders and below them.

    Of numbers that two runs give for the same thing, the first counts: a folder before the folders
    in it, and these in the order of their names.

    Raises:
      UsageError: for a folder without any, and for files that are not what `evaluate` writes.
    """
    files = [file for folder in folders for file in _found(Path(folder))]
    return joined([Report(tuple(read_rows(file))) for file in files])


def joined(reports: Iterable[Report]) -> Report:
    """One of several; of numbers that two give for the same thing, the first counts."""
    found: dict[tuple, Row] = {}
    conflicts = 0
    failures: dict[str, str] = {}
    for report in reports:
        failures |= report.failures
        for row in report.rows:
            conflicts += found.setdefault(row.key, row) != row
    return Report(tuple(found.values()), conflicts, failures)


def _found(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UsageError("folders", printable(folder), "a folder with results of evaluate")
    found = False
    for place, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if name != "features")
        if METRICS in files:
            found = True
            yield Path(place) / METRICS
    if not found:
        wanted = f"a folder with {METRICS} in it or below it, as evaluate writes"
        raise UsageError("folders", printable(folder), wanted)
