"""The pictures of faithfulness, with as many methods as there are."""

import numpy as np
import pytest

from jaxood.perturbation.measures import measures_of
from jaxood.perturbation.subject import RANDOM
from jaxood.report import faithfulness
from jaxood.report.faithfulness import Cell, MeanCurve
from jaxood.report.figures import figure_image

METHODS = [RANDOM, *(f"smoothgrad[of=guided-backprop,samples={number}]" for number in range(19))]
MEASURES = measures_of(["deletion[steps=4]", "insertion[steps=4]"])


@pytest.fixture
def figures(monkeypatch):
    """What is drawn instead of being written."""
    found = []
    monkeypatch.setattr(faithfulness, "write_figure", lambda path, figure: found.append(figure))
    return found


def test_the_legend_lies_beside_the_curves(figures, tmp_path):
    points = np.linspace(0, 1, 5)
    by_method = {name: MeanCurve(points, points, points) for name in METHODS}
    curves = dict.fromkeys(MEASURES, by_method)
    faithfulness.draw_curves(tmp_path / "curves.png", curves, MEASURES)
    (figure,) = figures
    figure_image(figure)  # places are known when it is drawn
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert [text.get_text() for text in legend.get_texts()] == METHODS
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes)


@pytest.mark.parametrize("methods", [METHODS, METHODS[:1]])
def test_a_table_is_longer_than_wide(figures, tmp_path, methods):
    """Whichever are more, measures or methods, go down; each number stands in its place."""
    values = {
        key: {name: 10 * m + n for n, name in enumerate(methods)} for m, key in enumerate(MEASURES)
    }
    cells = [
        Cell(key, "low", name, 2, float(value), 0.0, 1.0, 1, 1, 0.0, 0.0, 0.0)
        for key, by_method in values.items()
        for name, value in by_method.items()
    ]
    faithfulness.draw_table(tmp_path / "table.png", cells)
    (panel,) = figures[0].axes
    down = [label.get_text() for label in panel.get_yticklabels()]
    across = [label.get_text() for label in panel.get_xticklabels()]
    measures = [f"{key} (low)" for key in MEASURES]
    assert (down, across) == ((methods, measures) if len(methods) > 2 else (measures, methods))
    for text in panel.texts:
        column, row = text.get_position()
        names = {down[row].removesuffix(" (low)"), across[column].removesuffix(" (low)")}
        (key,), (name,) = names & set(MEASURES), names - set(MEASURES)
        assert text.get_text() == f"{values[key][name]:.3f}"
    assert len(panel.texts) == len(cells)
