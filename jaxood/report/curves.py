"""ROAD as a table, files and pictures: areas, curves of all methods, and what the model saw."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxood.perturbation.results import AREAS
from jaxood.perturbation.road import ORDERS, Curves
from jaxood.perturbation.subject import RANDOM
from jaxood.report.figures import line, write_figure
from jaxood.report.manifest import write_json
from jaxood.report.rows import write_csv

WITHIN = 6  # methods whose legend leaves room for the curves
LABELS = {"morf": "most relevant\nremoved first", "lerf": "least relevant\nremoved first"}
TITLES = {
    "morf": "most relevant removed first (low is good)",
    "lerf": "least relevant removed first (high is good)",
}


def draw_curves(path: Path, found: dict[str, Any]) -> None:
    """MoRF and LeRF side by side, a line a method with its 95 % interval; random dashed.

    Args:
      found: as `jaxood.perturbation.results.summary` gives it.
    """
    from matplotlib.figure import Figure

    x = 100 * np.asarray(found["fractions"])
    many = len(found["methods"]) > WITHIN
    below = 0.1 * len(found["methods"]) + 0.4 if many else 0.0
    figure = Figure(figsize=(11, 4.8 + below), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    images = max(method["images"] for method in found["methods"].values())
    for panel, order in zip(panels, ORDERS, strict=True):
        for name, method in found["methods"].items():
            curve, area = method[order]["confidence"], method["areas"][order]["mean"]
            style = line(list(found["methods"]), name, RANDOM)
            panel.plot(x, curve["mean"], linewidth=1.8, label=f"{name} ({area:.3f})", **style)
            if images > 1:
                panel.fill_between(
                    x, curve["low"], curve["high"], color=style["color"], alpha=0.12, lw=0
                )
        panel.set(title=TITLES[order], xlabel="pixels removed (%)", xlim=(0, x[-1]))
        panel.grid(color="0.92", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        if not many:
            corner = "upper right" if order == "morf" else "lower left"
            panel.legend(title="method (area)", loc=corner, fontsize=9, title_fontsize=9)
    if many:
        areas = {name: one["areas"] for name, one in found["methods"].items()}
        labels = [
            f"{name} ({one['morf']['mean']:.3f}, {one['lerf']['mean']:.3f})"
            for name, one in areas.items()
        ]
        how: dict[str, Any] = {
            "loc": "outside lower center",
            "ncols": 2,
            "fontsize": 9,
            "title_fontsize": 9,
        }
        figure.legend(panels[0].lines, labels, title="method (areas, left and right)", **how)
    panels[0].set_ylabel("probability of the class")
    panels[0].set_ylim(bottom=0)  # ends the scaling of the axis that the panels share
    note = f"mean of {images} images, bands: 95 % bootstrap interval" if images > 1 else "one image"
    figure.suptitle(f"ROAD, {found['settings']['imputation']} imputation; {note}", fontsize=11)
    write_figure(path, figure)


def draw_strip(
    path: Path,
    pictures: UInt8[np.ndarray, "r t h w 3"],
    rows: Sequence[tuple[str, str]],
    fractions: Sequence[float],
    confidence: Sequence[Float[np.ndarray, " t"]],
    title: str,
) -> None:
    """A column a fraction, the class's probability below each picture.

    Args:
      rows: method and order of each.
    """
    from matplotlib.figure import Figure

    cell, left, top = 1.55, 1.6, 0.8
    size = (left + cell * len(fractions), top + (cell + 0.17) * len(rows))
    figure = Figure(figsize=size, facecolor="white")
    title = textwrap.fill(title, max(30, int(11 * size[0])))
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / size[1], va="top", parse_math=False)
    for row, (method, order) in enumerate(rows):
        y = top + (cell + 0.17) * row
        figure.text(
            (left - 0.1) / size[0],
            1 - (y + cell / 2) / size[1],
            f"{textwrap.fill(method, 20)}\n{LABELS[order]}",
            ha="right",
            va="center",
            fontsize=9,
            linespacing=1.4,
        )
        for column, fraction in enumerate(fractions):
            box = (left + cell * column, size[1] - y - cell + 0.05, cell - 0.05, cell - 0.05)
            axes = figure.add_axes(
                (box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1])
            )
            axes.imshow(pictures[row, column], interpolation="lanczos")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"{100 * fraction:.0f} % removed", fontsize=9.5, pad=5)
            probability = 100 * confidence[row][column]
            below = f"{probability:.1f} %"
            axes.text(
                0.5, -0.02, below, fontsize=8.5, transform=axes.transAxes, ha="center", va="top"
            )
    write_figure(path, figure)


def table(found: dict) -> str:
    """A block an area, a line a method: mean, interval, images on which random maps are beaten."""
    width = max(len(name) for name in [*found["methods"], "method"])
    head = f"  {'method':<{width}}  {'area [95 %]':<27}beats random"
    titles = ("MoRF (low is good)", "LeRF (high is good)", "(LeRF - MoRF) / 2")
    lines = [head, "-" * len(head)]
    for order, title in zip(AREAS, titles, strict=True):
        lines.append(title)
        for name, method in found["methods"].items():
            area = method["areas"][order]
            mean = f"{area['mean']:7.4f} [{area['low']:.4f}, {area['high']:.4f}]"
            beats = {} if name == RANDOM else method["beats_random"]
            told = f"{beats[order]}/{method['images']}" if order in beats else ""
            lines.append(f"  {name:<{width}}  {mean:<27}{told}".rstrip())
    return "\n".join(lines)


def write_results(folder: Path, methods: Mapping[str, Mapping[str, Curves]], found: dict) -> None:
    """curves.csv, a row an image, method, order and fraction; areas.csv; curves.json, the means."""
    x = tuple(found["fractions"])
    points, areas = [], []
    for method, images in methods.items():
        for image, curve in images.items():
            areas.append((image, method, curve.target, *map(float, curve.areas(x))))
            for order, confidence, agrees in zip(
                ORDERS, curve.confidence, curve.agrees, strict=True
            ):
                points += [
                    (image, method, order, *map(float, values))
                    for values in zip(x, confidence, agrees, strict=True)
                ]
    columns = ("image", "method", "order", "fraction", "confidence", "accuracy")
    write_csv(folder / "curves.csv", columns, points)
    write_csv(folder / "areas.csv", ("image", "method", "target", *AREAS), areas)
    write_json(folder / "curves.json", found)
