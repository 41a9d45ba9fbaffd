"""report.html of an evaluation: tables that sort, curves, histograms, and images to look at."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxood.metrics.ood import Interval
from jaxood.report import svg
from jaxood.report.figures import line
from jaxood.report.html import (
    Cell,
    Number,
    figure,
    image,
    page,
    paragraph,
    run_section,
    section,
    side_by_side,
    table,
)
from jaxood.report.paper import PaperTable
from jaxood.report.tables import MethodResult


class Example(NamedTuple):
    """An image to look at.

    Attributes:
      caption: its score, class and name.
      pictures: as it is, and under its maps, with a frame around what the model sees of it.
    """

    caption: str
    pictures: tuple[UInt8[np.ndarray, "h w 3"], ...]


class Examples(NamedTuple):
    """Images of one set with the highest and with the lowest scores."""

    set: str
    highest: Sequence[Example]
    lowest: Sequence[Example]


def evaluation_page(
    title: str,
    notes: Sequence[str],
    warnings: Sequence[str],
    summary: PaperTable | None,
    results: Sequence[MethodResult],
    id_name: str,
    ranked_by: str,
    examples: Iterable[Examples],
    about: Mapping[str, object],
) -> str:
    """The document.

    Args:
      notes, warnings: lines below the title.
      summary: a row a method.
      ranked_by: the method by whose scores `examples` were chosen.
      about: the manifest.
    """
    parts = [paragraph(text) for text in notes]
    parts += [paragraph(text, "warning") for text in warnings]
    if summary is not None:
        methods = [result.method for result in results]
        styles = {name: line(methods, name) for name in methods}
        parts += [
            section(
                "Methods", paragraph("In per cent; a click on a head sorts."), _summary(summary)
            ),
            section("Curves", svg.legend(styles), side_by_side(_curves(results))),
            section("Every number", _numbers(results)),
            section("Scores", _histograms(results, id_name)),
            section(
                f"Images, by {ranked_by}",
                paragraph("What the method is surest of, and what it doubts; higher: more ID."),
                *map(_examples, examples),
            ),
        ]
    return page(title, [*parts, run_section(about)])


def _summary(summary: PaperTable) -> str:
    head = ["method", *(f"{column.title} {column.label}" for column in summary.columns)]
    rows: list[list[Cell]] = [
        [line.method, *(Number(cell.mean or 0.0, cell.text(), cell.best) for cell in line.cells)]
        for line in summary.lines
    ]
    return table(head, rows, "summary")


def _numbers(results: Sequence[MethodResult]) -> str:
    head = ["method", "OOD set", "AUROC [95 %]", "FPR95 [95 %]", "AUPR-in", "AUPR-out", "DTACC"]
    rows: list[list[Cell]] = [
        [
            result.method,
            name,
            _percent(found.auroc, found.auroc_interval),
            _percent(found.fpr95, found.fpr95_interval),
            *map(_percent, (found.aupr_in, found.aupr_out, found.dtacc)),
        ]
        for result in results
        for name, found in result.metrics.items()
    ]
    return table(head, rows, "metrics")


def _percent(value: float, interval: Interval | None = None) -> Number:
    between = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval else ""
    return Number(value, f"{100 * value:.2f}{between}")


def _curves(results: Sequence[MethodResult]) -> list[str]:
    return [
        figure(svg.roc({r.method: (r.scores.id, r.scores.ood[name]) for r in results}), name)
        for name in results[0].metrics
    ]


def _histograms(results: Sequence[MethodResult], id_name: str) -> str:
    """A row a method, or all in one where there is one OOD set."""
    rows = [
        [
            figure(
                svg.histogram(result.scores.id, foreign, (id_name, name)),
                f"{result.method}: {name}",
            )
            for name, foreign in result.scores.ood.items()
        ]
        for result in results
    ]
    if len(rows[0]) == 1:
        rows = [[drawn for row in rows for drawn in row]]
    about = paragraph(f"Blue: {id_name}; orange: the OOD set; dashed: 95 % of {id_name} lie above.")
    return about + "".join(map(side_by_side, rows))


def _examples(examples: Examples) -> str:
    rows = []
    for name, chosen in (("highest", examples.highest), ("lowest", examples.lowest)):
        if chosen:
            figures = [
                figure("".join(map(image, example.pictures)), example.caption, "image")
                for example in chosen
            ]
            rows.append(f"<p>{name}</p>{side_by_side(figures)}")
    return f"<h3>{escape(examples.set)}</h3>{''.join(rows)}"
