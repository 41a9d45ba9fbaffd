"""Faithfulness as a table, files and pictures: what every measure says of every method."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.files import write_whole
from jaxood.perturbation.measure import Better, Finding, Measure
from jaxood.perturbation.statistics import mean_interval, spearman
from jaxood.perturbation.subject import RANDOM
from jaxood.report.figures import line, write_figure
from jaxood.report.rows import write_csv

PANELS = 3  # in a row
LETTERS = 0.085  # inches each, of a legend


class ColumnValues(NamedTuple):
    """One column of a measure: of each method, a value an image.

    Attributes:
      name: the measure's key, and the column's name where it has several.
      images: names, by method, of those that have a value.
      values: by method, in the order of its images.
    """

    name: str
    better: Better
    images: Mapping[str, Sequence[str]]
    values: Mapping[str, Float[np.ndarray, " n"]]


@dataclass(frozen=True)
class Cell:
    """One method under one measure.

    Attributes:
      column: see `ColumnValues.name`.
      better: which values are good.
      images: so many have a value.
      mean, low, high: over images, with the 95 % bootstrap interval.
      rank: among methods by the mean, 1 the best; methods that are equal share the better rank.
      beats_random: on so many images.
      gain, gain_low, gain_high: over the random map, image by image, positive where better; the
        mean and its 95 % bootstrap interval.
    """

    column: str
    better: Better
    method: str
    images: int
    mean: float
    low: float
    high: float
    rank: int
    beats_random: int | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None


def columns_of(
    findings: Sequence[Finding], measures: Mapping[str, Measure]
) -> dict[str, ColumnValues]:
    """What these measures found, by column; random maps ("random/0"...) as their mean."""
    by_column: dict[str, dict[str, dict[str, list[float]]]] = {}
    for finding in (one for one in findings if one.measure in measures):
        method = RANDOM if finding.method.startswith(f"{RANDOM}/") else finding.method
        for column in measures[finding.measure].columns:
            if column in finding.values:
                name = f"{finding.measure} {column}".strip()
                methods = by_column.setdefault(name, {})
                images = methods.setdefault(method, {})
                images.setdefault(finding.id, []).append(finding.values[column])
    better = {
        f"{key} {column}".strip(): good
        for key, measure in measures.items()
        for column, good in measure.columns.items()
    }
    return {
        name: ColumnValues(
            name,
            better[name],
            {method: list(images) for method, images in methods.items()},
            {
                method: np.array([np.mean(values) for values in images.values()])
                for method, images in methods.items()
            },
        )
        for name, methods in by_column.items()
    }


def cells_of(column: ColumnValues, seed: int) -> list[Cell]:
    """Means, intervals and ranks of each method, and how it does against random maps."""
    sign = 1 if column.better == "high" else -1
    means = {method: float(values.mean()) for method, values in column.values.items()}
    cells = []
    for method, values in column.values.items():
        mean, low, high = map(float, mean_interval(values, seed))
        rank = 1 + sum(sign * (other - mean) > 0 for other in means.values())
        against: tuple = (None, None, None, None)
        gains = gains_over_random(column, method)
        if gains is not None:
            against = (int(np.sum(gains > 0)), *map(float, mean_interval(gains, seed)))
        cells.append(
            Cell(column.name, column.better, method, len(values), mean, low, high, rank, *against)
        )
    return cells


def gains_over_random(column: ColumnValues, method: str) -> Float[np.ndarray, " n"] | None:
    """By how much a method is better than random maps, image by image; None without those."""
    if method == RANDOM or column.images.get(RANDOM) != column.images[method]:
        return None
    sign = 1 if column.better == "high" else -1
    return sign * (column.values[method] - column.values[RANDOM])


def table(cells: Sequence[Cell]) -> str:
    """A block a measure, a line a method, the best first."""
    titles = {cell.column: f"{cell.column} ({cell.better} is good)" for cell in cells}
    width = max(len(name) for name in [*(cell.method for cell in cells), "method"])
    head = f"  {'method':<{width}}  {'mean [95 %]':<26}rank  beats random"
    lines = [head, "-" * max(map(len, [head, *titles.values()]))]
    for column, title in titles.items():
        lines.append(title)
        block = [cell for cell in cells if cell.column == column]
        for cell in sorted(block, key=lambda cell: cell.rank):
            mean = f"{cell.mean:7.4f} [{cell.low:.4f}, {cell.high:.4f}]"
            beats = "" if cell.beats_random is None else f"{cell.beats_random}/{cell.images}"
            told = f"  {cell.method:<{width}}  {mean:<26}{cell.rank:>4}  {beats}"
            lines.append(told.rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class Movement:
    """How much a column moves when one thing about its measure changes.

    Attributes:
      changed: "seed", "baseline" or "resolution".
      variants: keys of the measures compared.
      spread: of the means over images of all methods, as it is measured: largest minus smallest.
      shift: mean over methods and variants of the change of that mean, without its sign.
      order: mean over variants of Spearman's correlation, over methods, with the means as measured.
    """

    column: str
    changed: str
    variants: tuple[str, ...]
    spread: float
    shift: float
    order: float


def movements(
    findings: Sequence[Finding], variants: Mapping[Measure, Mapping[str, Sequence[Measure]]]
) -> list[Movement]:
    """What becomes of each column of a measure under its variants."""
    found = []
    for measure, by_change in variants.items():
        for changed, others in by_change.items():
            every = {one.key: one for one in (measure, *others)}
            columns = columns_of(findings, every)
            for name in measure.columns:
                base, *moved = (_means(columns[f"{key} {name}".strip()]) for key in every)
                found.append(
                    Movement(
                        f"{measure.key} {name}".strip(),
                        changed,
                        tuple(other.key for other in others),
                        float(np.ptp(base)),
                        float(np.mean([np.abs(means - base) for means in moved])),
                        float(np.mean([spearman(base, means) for means in moved])),
                    )
                )
    return found


def _means(column: ColumnValues) -> Float[np.ndarray, " m"]:
    return np.array([values.mean() for values in column.values.values()])


def movement_table(found: Sequence[Movement]) -> str:
    """A line a column and change."""
    width = max(len(one.column) for one in found)
    head = f"{'measure':<{width}}  {'changed':<11}{'spread of methods':>18}{'shift':>9}  same order"
    lines = [head, "-" * len(head)]
    for one in found:
        numbers = f"{one.spread:>18.4f}{one.shift:>9.4f}  {one.order:.2f}"
        lines.append(f"{one.column:<{width}}  {one.changed:<11}{numbers}")
    return "\n".join(lines)


def markdown(cells: Sequence[Cell]) -> str:
    """Measures down, methods across: mean, its interval and rank; the best in bold."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    rows = [["measure", "good", *methods], ["---"] * (2 + len(methods))]
    by_column: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        by_column.setdefault(cell.column, {})[cell.method] = cell
    for column, found in by_column.items():
        texts = [_in_markdown(found.get(method)) for method in methods]
        rows.append([f"`{column}`", next(iter(found.values())).better, *texts])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _in_markdown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    mean = f"{cell.mean:.3f}" if cell.rank > 1 else f"**{cell.mean:.3f}**"
    return f"{mean} [{cell.low:.3f}, {cell.high:.3f}] {cell.rank}"


def mean_ranks(cells: Sequence[Cell]) -> dict[str, float]:
    """By method, the mean of its ranks over all columns that every method has; the best first."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    ranks: dict[str, dict[str, int]] = {}
    for cell in cells:
        ranks.setdefault(cell.column, {})[cell.method] = cell.rank
    whole = [found for found in ranks.values() if len(found) == len(methods)]
    if not whole:
        return {}
    means = {method: float(np.mean([found[method] for found in whole])) for method in methods}
    return dict(sorted(means.items(), key=lambda entry: entry[1]))


class MeanCurve(NamedTuple):
    """A curve of one method: mean over images, and its 95 % bootstrap interval."""

    mean: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]


def curves_of(
    findings: Sequence[Finding], measures: Mapping[str, Measure], seed: int
) -> dict[str, dict[str, MeanCurve]]:
    """By measure and name of the curve, then method; of measures whose curves have an axis."""
    found: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {}
    for finding in (one for one in findings if one.measure in measures):
        points = len(measures[finding.measure].axis)
        method = RANDOM if finding.method.startswith(f"{RANDOM}/") else finding.method
        for name, curve in finding.curves.items():
            if len(curve) == points and name in measures[finding.measure].columns:
                title = f"{finding.measure} {name}".strip()
                images = found.setdefault(title, {}).setdefault(method, {})
                images.setdefault(finding.id, []).append(np.asarray(curve))
    return {
        title: {
            method: _mean_curve([np.mean(curves, axis=0) for curves in images.values()], seed)
            for method, images in methods.items()
        }
        for title, methods in found.items()
    }


def _mean_curve(curves: Sequence[np.ndarray], seed: int) -> MeanCurve:
    return MeanCurve(*map(np.asarray, mean_interval(np.stack(curves), seed)))


def draw_curves(
    path: Path, curves: Mapping[str, Mapping[str, MeanCurve]], measures: Mapping[str, Measure]
) -> None:
    """A panel a measure, a line a method with its 95 % interval; random dashed."""
    from matplotlib.figure import Figure

    columns = min(PANELS, len(curves))
    rows = -(-len(curves) // columns)
    methods = list(dict.fromkeys(name for one in curves.values() for name in one))
    width = 5.2 * columns
    beside = max(1, int(width / (0.7 + LETTERS * max(map(len, methods)))))
    below = 0.2 * -(-len(methods) // beside)
    figure = Figure(figsize=(width, 4.2 * rows + below), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (title, by_method) in zip(panels, curves.items(), strict=False):
        x = 100 * np.asarray(measures[title.partition(" ")[0]].axis)
        for name, curve in by_method.items():
            style = line(methods, name, RANDOM)
            panel.plot(x, curve.mean, linewidth=1.6, label=name, **style)
            panel.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.1, lw=0)
        panel.set_title(title, fontsize=10)
        panel.grid(color="0.92", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(curves) - columns) : len(curves)]:
        panel.set_xlabel("changed: pixels, features or stages (%)", fontsize=9)
    drawn = {one.get_label(): one for panel in panels for one in panel.lines}
    how: dict[str, Any] = {"loc": "outside lower center", "ncols": beside, "fontsize": 8}
    figure.legend([drawn[name] for name in methods], methods, **how)
    write_figure(path, figure)


def draw_table(path: Path, cells: Sequence[Cell]) -> None:
    """Means, the darker the better their rank; of measures and methods the many go down."""
    from matplotlib.figure import Figure

    better = {cell.column: cell.better for cell in cells}
    columns = {name: f"{name} ({good})" for name, good in better.items()}
    methods = {cell.method: cell.method for cell in cells}
    down, across = (columns, methods) if len(columns) >= len(methods) else (methods, columns)
    keys = {name: index for one in (down, across) for index, name in enumerate(one)}
    ranks = np.full((len(down), len(across)), np.nan)
    letters = max(map(len, down.values())), max(map(len, across.values()))
    size = (
        0.6 + LETTERS * letters[0] + 1.15 * len(across) + 0.7 * LETTERS * letters[1],
        0.6 + 0.34 * len(down) + 0.5 * LETTERS * letters[1],
    )
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    for cell in cells:
        found = keys[cell.column], keys[cell.method]
        row, column = found if down is columns else found[::-1]
        ranks[row, column] = cell.rank
        colour = "white" if cell.rank <= (len(methods) + 1) / 2 else "black"
        text = panel.text(column, row, f"{cell.mean:.3f}", color=colour, fontsize=8)
        text.set(ha="center", va="center")
    panel.imshow(ranks, cmap="Blues_r", vmin=1, vmax=len(methods) + 1, aspect="auto")
    panel.set_yticks(range(len(down)), labels=list(down.values()), fontsize=8)
    names = list(across.values())
    panel.set_xticks(range(len(across)), labels=names, fontsize=8, rotation=30, ha="left")
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    write_figure(path, figure)


def write_results(
    folder: Path,
    columns: Mapping[str, ColumnValues],
    cells: Sequence[Cell],
    curves: Mapping[str, Mapping[str, MeanCurve]],
    measures: Mapping[str, Measure],
) -> None:
    """values.csv, a row an image, method and measure; table.csv, table.md; curves.csv, means."""
    values = [
        (image, method, column.name, column.better, float(value))
        for column in columns.values()
        for method, found in column.values.items()
        for image, value in zip(column.images[method], found, strict=True)
    ]
    write_csv(folder / "values.csv", ("image", "method", "measure", "good", "value"), values)
    rows = [tuple(asdict(cell).values()) for cell in cells]
    write_csv(folder / "table.csv", tuple(field.name for field in fields(Cell)), rows)
    write_whole(folder / "table.md", markdown(cells).encode())
    points = [
        (title, method, *map(float, point))
        for title, by_method in curves.items()
        for method, curve in by_method.items()
        for point in zip(measures[title.partition(" ")[0]].axis, *curve, strict=True)
    ]
    write_csv(folder / "curves.csv", ("measure", "method", "x", "mean", "low", "high"), points)
