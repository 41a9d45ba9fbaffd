"""report.html of faithfulness: methods under measures, their curves, and the maps themselves."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxood.perturbation.measure import Measure
from jaxood.perturbation.subject import RANDOM
from jaxood.report import html, svg
from jaxood.report.faithfulness import Cell, ColumnValues, MeanCurve, Movement, mean_ranks
from jaxood.report.figures import line
from jaxood.report.html import Number, figure, paragraph, section, side_by_side

NAMED = 5  # images that a cell names


class Pictured(NamedTuple):
    """An image and its maps.

    Attributes:
      target: the class that the maps explain.
      picture: whole, where the image set has more than the model sees.
      heats: a map in colours, by method; one random map among them.
    """

    id: str
    target: str
    picture: UInt8[np.ndarray, "h w 3"]
    heats: Mapping[str, UInt8[np.ndarray, "h w 3"]]


class Purified(NamedTuple):
    """What SFP by each map gains; see `jaxood.flows.purification.Purification`."""

    suite: str
    energy: float
    auroc: Mapping[str, float]
    gain: Mapping[str, float]
    agreement: Mapping[str, float]
    refused: Mapping[str, str]


class Found(NamedTuple):
    """What the page tells; see `jaxood.flows.faithfulness.FaithfulnessResult`."""

    columns: Mapping[str, ColumnValues]
    table: Sequence[Cell]
    curves: Mapping[str, Mapping[str, MeanCurve]]
    measures: Mapping[str, Measure]
    random_wins: Mapping[str, Mapping[str, Sequence[str]]]
    stability: Sequence[Movement]
    purified: Purified | None


def faithfulness_page(
    title: str,
    notes: Sequence[str],
    found: Found,
    images: Iterable[Pictured],
    about: Mapping[str, object],
) -> str:
    """The document.

    Args:
      notes: lines below the title.
      about: the manifest.
    """
    told = (
        "Means over images [95 % bootstrap interval], then the rank; the best is bold. "
        "A click on a head sorts."
    )
    parts = [paragraph(text) for text in notes]
    parts.append(section("Methods and measures", paragraph(told), _summary(found.table)))
    if found.curves:
        parts.append(section("Curves", *_curves(found.curves, found.measures)))
    parts.append(section("Every number", _numbers(found.table)))
    if found.random_wins:
        told = "Images on which the mean of the random maps is as good as the map, or better."
        parts.append(section("Where random maps win", paragraph(told), _wins(found)))
    if found.stability:
        parts.append(section("How much a measure moves", _stability(found.stability)))
    if found.purified is not None:
        parts.append(section("Purification by these maps", *_purification(found.purified)))
    images = list(images)
    if images:
        of = max(cell.images for cell in found.table)
        told = f"The first {len(images)} of {of} images; {RANDOM} is one of the random maps."
        shown = [_image(one, number, found.columns) for number, one in enumerate(images)]
        parts.append(section("Images", paragraph(told), *shown))
    return html.page(title, [*parts, html.run_section(about)])


def _interval(mean: float, low: float, high: float, digits: int = 3) -> str:
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _good(cells: Sequence[Cell | ColumnValues], names: Sequence[str]) -> list[str]:
    """Columns with what is good of each."""
    return [f"{name} ({cell.better})" for name, cell in zip(names, cells, strict=True)]


def _summary(cells: Sequence[Cell]) -> str:
    by_column = {cell.column: cell for cell in cells}
    ranks = mean_ranks(cells)
    several = len(by_column) > 1 and bool(ranks)
    head = ["method", *["mean rank"] * several, *_good(list(by_column.values()), list(by_column))]
    by_place = {(cell.method, cell.column): cell for cell in cells}
    methods = ranks or dict.fromkeys(cell.method for cell in cells)
    rows = []
    for method in methods:
        row: list[html.Cell] = [method]
        if several:
            row.append(Number(ranks[method], f"{ranks[method]:.1f}"))
        for column in by_column:
            cell = by_place.get((method, column))
            if cell is None:
                row.append(Number(None, ""))
            else:
                text = f"{_interval(cell.mean, cell.low, cell.high)} {cell.rank}"
                row.append(Number(cell.mean, text, cell.rank == 1))
        rows.append(row)
    return html.table(head, rows, "summary")


def _curves(
    curves: Mapping[str, Mapping[str, MeanCurve]], measures: Mapping[str, Measure]
) -> list[str]:
    methods = list(dict.fromkeys(name for by_method in curves.values() for name in by_method))
    styles = {name: line(methods, name, RANDOM) for name in methods}
    label = "changed: pixels, features or stages (%)"
    drawn = [
        figure(svg.curves(measures[title.partition(" ")[0]].axis, by_method, styles, label), title)
        for title, by_method in curves.items()
    ]
    told = paragraph("Mean over images, and its 95 % interval; the pointer tells the method.")
    return [told, svg.legend(styles), side_by_side(drawn)]


def _numbers(cells: Sequence[Cell]) -> str:
    head = ["measure", "good", "method", "images", "mean [95 %]", "rank"]
    head += ["beats random", "gain over random [95 %]"]
    rows: list[list[html.Cell]] = []
    for cell in cells:
        beats, gain = Number(None, ""), Number(None, "")
        if cell.beats_random is not None:
            beats = Number(cell.beats_random, f"{cell.beats_random}/{cell.images}")
        if cell.gain is not None and cell.gain_low is not None and cell.gain_high is not None:
            gain = Number(cell.gain, _interval(cell.gain, cell.gain_low, cell.gain_high, 4))
        mean = Number(cell.mean, _interval(cell.mean, cell.low, cell.high, 4), cell.rank == 1)
        counts = Number(cell.images, str(cell.images)), Number(cell.rank, str(cell.rank))
        rows.append(
            [cell.column, cell.better, cell.method, counts[0], mean, counts[1], beats, gain]
        )
    return html.table(head, rows, "numbers")


def _wins(found: Found) -> str:
    rows: list[list[html.Cell]] = []
    for column, by_method in found.random_wins.items():
        for method, lost in by_method.items():
            of = len(found.columns[column].images[method])
            more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
            count = Number(len(lost), f"{len(lost)}/{of}")
            rows.append([column, method, count, ", ".join(lost[:NAMED]) + more])
    return html.table(["measure", "method", "images", "which"], rows, "random-wins")


def _stability(movements: Sequence[Movement]) -> str:
    head = ["measure", "changed", "spread of methods", "shift", "same order", "compared with"]
    rows: list[list[html.Cell]] = [
        [
            one.column,
            one.changed,
            Number(one.spread, f"{one.spread:.4f}"),
            Number(one.shift, f"{one.shift:.4f}"),
            Number(one.order, f"{one.order:.2f}"),
            ", ".join(one.variants),
        ]
        for one in movements
    ]
    told = "Where the shift is as large as the spread, the measure cannot tell these methods apart."
    return paragraph(told) + html.table(head, rows, "stability")


def _purification(found: Purified) -> list[str]:
    told = f"AUROC on {found.suite} of energy after SFP by each map; of energy alone"
    rows: list[list[html.Cell]] = [
        [
            method,
            Number(auroc, f"{100 * auroc:.2f}"),
            Number(found.gain[method], f"{100 * found.gain[method]:+.2f}"),
        ]
        for method, auroc in found.auroc.items()
    ]
    parts = [paragraph(f"{told} {100 * found.energy:.2f}.")]
    parts.append(html.table(["method", "AUROC", "gain"], rows, "purification"))
    parts += [paragraph(f"{name}: no sfp: {why}", "warning") for name, why in found.refused.items()]
    if found.agreement:
        told = (
            "Do maps that a measure calls better gain more? Spearman's correlation over "
            f"{len(found.auroc)} methods: with few of them a hint."
        )
        rows = [[name, Number(value, f"{value:+.2f}")] for name, value in found.agreement.items()]
        parts += [paragraph(told), html.table(["measure", "agreement"], rows, "agreement")]
    return parts


def _image(one: Pictured, number: int, columns: Mapping[str, ColumnValues]) -> str:
    maps = [figure(html.comparison(one.picture, heat), name) for name, heat in one.heats.items()]
    values = {
        name: {
            method: float(column.values[method][list(images).index(one.id)])
            for method, images in column.images.items()
            if one.id in images
        }
        for name, column in columns.items()
    }
    methods = list(dict.fromkeys(method for found in values.values() for method in found))
    head = ["method", *_good(list(columns.values()), list(columns))]
    rows: list[list[html.Cell]] = [
        [
            method,
            *(
                Number(found[method], f"{found[method]:.3f}")
                if method in found
                else Number(None, "")
                for found in values.values()
            ),
        ]
        for method in methods
    ]
    explained = paragraph(f"the maps explain {one.target}; {RANDOM} below: the mean of all")
    table = html.table(head, rows, f"image-{number}")
    return f"<h3>{escape(one.id)}</h3>{explained}{side_by_side(maps)}{table}"
