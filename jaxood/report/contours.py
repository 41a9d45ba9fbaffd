"""Scores over a plane as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.report.figures import BLUE, ORANGE, write_figure


class Panel(NamedTuple):
    """What a method says of every point of a grid, and from which score on a point is taken."""

    values: Float[np.ndarray, "y x"]
    threshold: float


def draw_contours(
    path: Path,
    axes: Sequence[Float[np.ndarray, " _"]],
    panels: Mapping[str, Panel],
    points: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
) -> None:
    """A panel a method, side by side; the line is drawn at the threshold.

    Args:
      axes: x and y of the grid.
      points, labels: what the methods were fitted on; two classes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout="constrained")
    shown = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, (values, threshold)) in zip(shown, panels.items(), strict=True):
        filled = panel.contourf(*axes, values, levels=20, cmap="cividis")
        panel.contour(*axes, values, levels=[threshold], colors="white", linewidths=2)
        for label, colour in enumerate((BLUE, ORANGE)):
            members = points[labels == label]
            panel.scatter(*members.T, s=5, color=colour, edgecolors="white", linewidths=0.2)
        accepted = np.mean(values >= threshold)
        panel.set(title=f"{name}: takes {accepted:.0%} of the plane as in distribution")
        panel.set(xticks=[], yticks=[], aspect="equal")
        figure.colorbar(filled, ax=panel, shrink=0.8, label="score (higher: more ID)")
    write_figure(path, figure)
