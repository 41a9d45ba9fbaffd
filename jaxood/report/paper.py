"""Tables for a paper: a row a model and method, columns by OOD set and group, in per cent.

A cell is the mean over runs (seeds, and weights of one name), with their standard deviation (of a
sample, as pandas has it). The mean of a group is the unweighted mean over its sets, run by run, as
OpenOOD computes it. The best of each model and column is marked.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxood.errors import choose, require
from jaxood.report.rows import ACCURACY, Row

COLUMNS = ("sets", "groups")
MEAN = "mean"
LABELS = {"auroc": "AUROC", "aupr_in": "AUPR-in", "aupr_out": "AUPR-out", "dtacc": "DTACC"}


class Cell(NamedTuple):
    """A mean over runs, in per cent; None where a run lacks it.

    Attributes:
      std: None for one run.
    """

    mean: float | None
    std: float | None = None
    best: bool = False

    def text(self, best: str = "{}", between: str = " ± ") -> str:
        """As it is printed; `best` is a format for the best of its column."""
        if self.mean is None:
            return "-"
        spread = "" if self.std is None else f"{between}{self.std:.2f}"
        text = f"{self.mean:.2f}{spread}"
        return best.format(text) if self.best else text


class Column(NamedTuple):
    """One metric of one set, or of the mean of several."""

    title: str
    metric: str
    sets: tuple[str, ...]

    @property
    def label(self) -> str:
        return LABELS.get(self.metric, self.metric.replace("fpr", "FPR").replace("auroc", "AUROC"))

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return -1 if "fpr" in self.metric else 1

    def goodness(self, cell: Cell) -> float:
        """Higher is better; minus infinity where there is nothing."""
        return -np.inf if cell.mean is None else self.sign * cell.mean


class Line(NamedTuple):
    """A model and method, a cell a column."""

    model: str
    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PaperTable:
    """One suite.

    Attributes:
      notes: what else a reader must know: accuracies, runs, cells that are missing.
    """

    suite: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """For a terminal; the best is followed by "*"."""
        titles = [column.title for column in self.columns]
        above = [
            title if index == 0 or title != titles[index - 1] else ""  # once for neighbours
            for index, title in enumerate(titles)
        ]
        columns = [
            [title, column.label, *(line.cells[index].text("{}*") for line in self.lines)]
            for index, (title, column) in enumerate(zip(above, self.columns, strict=True))
        ]
        names = ["", "method", *(line.method for line in self.lines)]
        models = [self.suite, "model", *(line.model for line in self.lines)]
        padded = [_padded(models, str.ljust), _padded(names, str.ljust)]
        padded += [_padded(column, str.rjust) for column in columns]
        rows = ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
        return "\n".join([*rows[:2], "-" * max(map(len, rows)), *rows[2:], *self.notes])

    def markdown(self) -> str:
        """A table of Markdown below the suite's name; the best is bold."""
        head = ["model", "method", *(f"{c.title} {c.label}" for c in self.columns)]
        rows = [
            [line.model, line.method, *(cell.text("**{}**") for cell in line.cells)]
            for line in self.lines
        ]
        rule = ["---", "---", *["---:"] * len(self.columns)]
        escaped = [[text.replace("|", "\\|") for text in row] for row in (head, rule, *rows)]
        lines = ["| " + " | ".join(row) + " |" for row in escaped]
        return "\n".join([f"**{self.suite}**", "", *lines, "", *(f"{n}  " for n in self.notes)])

    def latex(self) -> str:
        """A tabular with the rules of the package booktabs; the best is bold."""
        spans = _spans([column.title for column in self.columns])
        over = [f"\\multicolumn{{{count}}}{{c}}{{{_escaped(title)}}}" for title, count in spans]
        ends = np.cumsum([2, *(count for _, count in spans)])
        rules = [
            f"\\cmidrule(lr){{{first + 1}-{last}}}" for first, last in itertools.pairwise(ends)
        ]
        below = [f"{_escaped(column.label)} {_arrow(column)}" for column in self.columns]
        body = []
        for index, line in enumerate(self.lines):
            new = index == 0 or line.model != self.lines[index - 1].model
            if new and index:
                body.append("\\midrule")
            cells = [cell.text("\\textbf{{{}}}", " $\\pm$ ") for cell in line.cells]
            names = [_escaped(line.model) if new else "", _escaped(line.method)]
            body.append(_row([*names, *cells]))
        return "\n".join(
            [
                f"% {self.suite}",
                *(f"% {note}" for note in self.notes),
                f"\\begin{{tabular}}{{ll{'r' * len(self.columns)}}}",
                "\\toprule",
                _row(["", "", *over]),
                " ".join(rules),
                _row(["model", "method", *below]),
                "\\midrule",
                *body,
                "\\bottomrule",
                "\\end{tabular}",
            ]
        )


def paper_tables(
    rows: Sequence[Row],
    metrics: Sequence[str] = ("auroc", "fpr95"),
    columns: str = "sets",
    sort: str | None = None,
) -> list[PaperTable]:
    """A table a suite.

    Args:
      metrics: names of metrics, as rows have them.
      columns: "sets": each set, and the mean of each group (of all sets where there are no
        groups); "groups": the means alone.
      sort: a metric, by whose mean over the columns methods are ordered, the best first; "method":
        by name; None: as they come.

    Raises:
      UsageError: for a metric that no row has.
    """
    known = {row.metric: None for row in rows if row.method}
    require(bool(known), "folders", "runs without a result", "at least one method with a result")
    for metric in metrics:
        choose("metrics", metric, known)
    choose("columns", columns, COLUMNS)
    if sort is not None:
        choose("sort", sort, ["method", *metrics])
    suites = dict.fromkeys(row.suite for row in rows)
    return [
        _table([row for row in rows if row.suite == suite], metrics, columns, sort)
        for suite in suites
    ]


def _table(rows: Sequence[Row], metrics, columns: str, sort: str | None) -> PaperTable:
    runs: dict[str, dict[tuple[str, int], None]] = {}
    values: dict[tuple[str, ...], dict[tuple[str, int], float]] = {}
    for row in rows:
        run = row.weights, row.seed
        runs.setdefault(row.model, {})[run] = None
        values.setdefault((row.model, row.method, row.set, row.metric), {})[run] = row.value

    def cell(model: str, method: str, sets: Sequence[str], metric: str) -> Cell:
        by_set = [values.get((model, method, name, metric), {}) for name in sets]
        if any(run not in found for run in runs[model] for found in by_set):
            return Cell(None)
        means = [100 * np.mean([found[run] for found in by_set]) for run in runs[model]]
        return Cell(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None)

    chosen = _columns(rows, metrics, columns)
    lines: list[Line] = []
    for model in runs:
        methods = dict.fromkeys(row.method for row in rows if row.model == model and row.method)
        block = [
            Line(model, method, tuple(cell(model, method, c.sets, c.metric) for c in chosen))
            for method in methods
        ]
        lines += _sorted(_with_best(block, chosen), chosen, sort)
    accuracies = {(row.model, row.set): None for row in rows if row.metric == ACCURACY}
    notes = [
        f"{model}: accuracy on {name} {cell(model, '', (name,), ACCURACY).text()} %"
        for model, name in accuracies
    ]
    notes += [
        f"{model}: mean ± standard deviation over {len(found)} runs"
        for model, found in runs.items()
        if len(found) > 1
    ]
    if any(entry.mean is None for line in lines for entry in line.cells):
        notes.append("-: not every run has it")
    return PaperTable(rows[0].suite, tuple(chosen), tuple(lines), tuple(notes))


def _columns(rows: Sequence[Row], metrics: Sequence[str], columns: str) -> list[Column]:
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.method:
            groups.setdefault(row.group, {})[row.set] = None
    grouped = any(groups)
    found: list[tuple[str, tuple[str, ...]]] = []
    for group, names in groups.items():
        mean = f"{group} {MEAN}" if grouped and columns == "sets" else group or MEAN
        if columns == "sets" or (grouped and not group):  # a set of no group stands for itself
            found += [(name, (name,)) for name in names]
        if (group or not grouped) and (len(names) > 1 or columns == "groups"):
            found.append((mean, tuple(names)))
    return [Column(title, metric, sets) for title, sets in found for metric in metrics]


def _with_best(lines: Sequence[Line], columns: Sequence[Column]) -> list[Line]:
    """The lines of a model, marked; what is printed alike is best alike."""
    cells = [list(line.cells) for line in lines]
    for index, column in enumerate(columns):
        shown = [round(column.goodness(row[index]), 2) for row in cells]
        for row, value in zip(cells, shown, strict=True):
            best = len(lines) > 1 and -np.inf < value == max(shown)
            row[index] = row[index]._replace(best=best)
    return [line._replace(cells=tuple(row)) for line, row in zip(lines, cells, strict=True)]


def _sorted(lines: list[Line], columns: Sequence[Column], sort: str | None) -> list[Line]:
    """By name, or by the mean over the means of groups, over the sets where there are none."""
    if sort is None:
        return lines
    if sort == "method":
        return sorted(lines, key=lambda line: line.method)
    of_metric = [index for index, column in enumerate(columns) if column.metric == sort]
    means = [index for index in of_metric if len(columns[index].sets) > 1]

    def goodness(line: Line) -> float:
        found = [columns[index].goodness(line.cells[index]) for index in means or of_metric]
        return float(np.mean(found))

    return sorted(lines, key=goodness, reverse=True)


def _spans(titles: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours of one title, and how many they are."""
    spans: list[tuple[str, int]] = []
    for title in titles:
        if spans and spans[-1][0] == title:
            spans[-1] = title, spans[-1][1] + 1
        else:
            spans.append((title, 1))
    return spans


def _padded(texts: Sequence[str], pad: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, texts))
    return [pad(text, width) for text in texts]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _arrow(column: Column) -> str:
    return "$\\uparrow$" if column.sign > 0 else "$\\downarrow$"


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\textbackslash ")
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("~", "\\textasciitilde ").replace("^", "\\textasciicircum ")
