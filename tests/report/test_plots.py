"""Curves, histograms and the plane of scores: what is drawn, and what is said of what is not."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_curve

from jaxood.metrics.ood import measure
from jaxood.report import figures, plots
from jaxood.report.contours import Panel, draw_contours
from jaxood.report.tables import MethodResult, Scores

RNG = np.random.default_rng(0)


def result(method: str, distance: float) -> MethodResult:
    scores = Scores(RNG.normal(distance, 1, 60), {name: RNG.normal(0, 1, 40) for name in "xyz"})
    metrics = {name: measure(scores.id, foreign) for name, foreign in scores.ood.items()}
    return MethodResult(method, None, scores, metrics)


@pytest.fixture
def written(monkeypatch):
    """The figures that are written, by the name of the file."""
    found: dict[str, Figure] = {}
    savefig = Figure.savefig

    def keep(figure, path, **options):
        found[path.name.split(".")[1]] = figure
        savefig(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def test_roc_points_are_scikit_learns():
    for known, foreign in (
        (RNG.normal(1, 1, 30), RNG.normal(0, 1, 20)),
        (RNG.integers(0, 5, 40) * 1.0, RNG.integers(0, 4, 30) * 1.0),
    ):
        labels = np.repeat([1, 0], [len(known), len(foreign)])
        both = np.concatenate([known, foreign])
        false, true, _ = roc_curve(labels, both, drop_intermediate=False)
        found = plots.roc_points(known, foreign)
        np.testing.assert_allclose(found[0], false, atol=1e-12)
        np.testing.assert_allclose(found[1], true, atol=1e-12)


def test_a_curve_of_many_scores_is_thinned_beyond_what_can_be_seen():
    curve = plots.roc_points(RNG.normal(1, 1, 60_000), RNG.normal(0, 1, 20_000))
    false, true = plots.thinned(*curve, plots.MOST_POINTS)
    assert len(false) < 4100 and len(curve[0]) == 80_001
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    found = np.interp(curve[0] + curve[1], false + true, false)  # along the diagonal
    assert np.abs(found - curve[0]).max() < 1 / 1000  # a panel has 400 pixels


@pytest.mark.parametrize(
    ("kind", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_the_name_says_the_format_and_the_same_figure_is_the_same_file(tmp_path, kind, begin):
    drawn = [result("near", 0.5)]
    for folder in "ab":
        plots.draw_roc(tmp_path / folder / f"roc.{kind}", drawn, "known")
    first, second = ((tmp_path / folder / f"roc.{kind}").read_bytes() for folder in "ab")
    assert first.startswith(begin) and first == second


def test_a_panel_a_set_and_a_curve_a_method(tmp_path, written):
    results = [result("near", 0.5), result("far", 2.0)]
    plots.draw_roc(tmp_path / "new" / "roc.png", results, "known")
    panels = written["roc"].axes
    assert [panel.get_title() for panel in panels] == ["x", "y", "z"]
    assert panels[0].get_ylabel() == "known kept (TPR, %)"
    for panel, name in zip(panels, "xyz", strict=True):
        best, second = panel.get_lines()[:2]
        assert best.get_label() == f"far ({100 * results[1].metrics[name].auroc:.1f})"
        assert second.get_label().startswith("near (")
        false, true = plots.roc_points(results[1].scores.id, results[1].scores.ood[name])
        np.testing.assert_allclose(best.get_xydata(), 100 * np.stack([false, true], axis=1))
    assert written["roc"].get_suptitle() == ""
    with Image.open(tmp_path / "new" / "roc.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["roc.png"]


@pytest.mark.long
def test_what_is_not_drawn_is_said(tmp_path, written):
    results = [result(f"method {index}", 0.2 * index) for index in range(14)]
    plots.draw_roc(tmp_path / "roc.png", results, "known")
    plots.draw_histograms(tmp_path / "scores.png", results, "known")
    assert written["roc"].get_suptitle() == "the best 8 of 14 methods, by mean AUROC"
    assert written["scores"].get_suptitle() == "the first 12 of 14 methods"


def test_histograms_hold_every_image_and_the_threshold(tmp_path, written):
    (one,) = results = [result("knn", 1.0)]
    plots.draw_histograms(tmp_path / "scores.png", results, "known")
    panel = written["scores"].axes[0]
    assert panel.get_xlabel() == "knn score (higher: more ID)"
    for steps, scores in zip(panel.patches, (one.scores.id, one.scores.ood["x"]), strict=True):
        heights, edges, _ = steps.get_data()
        inside = np.clip(scores, edges[0], edges[-1])
        expected = [  # the last bar holds its upper edge
            np.mean((low <= inside) & ((inside < high) | (high == edges[-1])))
            for low, high in zip(edges, edges[1:], strict=False)
        ]
        np.testing.assert_allclose(heights, 100 * np.array(expected), atol=1e-9)
        assert sum(heights) == pytest.approx(100)
    (line,) = panel.get_lines()
    kept = np.mean(one.scores.id >= line.get_xdata()[0])
    assert 0.95 <= kept < 0.95 + 1 / 60
    assert panel.get_title() == "x" and len(panel.get_yticks()) > 1
    (legend,) = written["scores"].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["known", "OOD set above", "threshold: 95 % of known are kept"]


def test_constant_scores_are_drawn(tmp_path):
    scores = Scores(np.ones(5), {"x": np.ones(3)})
    constant = MethodResult("flat", None, scores, {"x": measure(scores.id, scores.ood["x"])})
    plots.draw_histograms(tmp_path / "scores.png", [constant], "known")
    plots.draw_roc(tmp_path / "roc.png", [constant], "known")


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    plots.draw_roc(tmp_path / "roc.png", [result("a", 1.0)], "known")
    before = (tmp_path / "roc.png").read_bytes()

    def no_space(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", no_space)
    with pytest.raises(OSError, match="no space left"):
        plots.draw_roc(tmp_path / "roc.png", [result("b", 1.0)], "known")
    assert (tmp_path / "roc.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_the_plane_says_how_much_of_it_is_taken(tmp_path, written):
    axes = [np.linspace(0, 3, 40), np.linspace(0, 1, 20)]
    values = np.broadcast_to(axes[0], (20, 40))
    points, labels = RNG.uniform(0, 1, (30, 2)), np.arange(30) % 2
    panels = {"energy": Panel(values, 1.5), "knn": Panel(-values, -0.75)}
    draw_contours(tmp_path / "all.png", axes, panels, points, labels)
    titles = [panel.get_title() for panel in written["all"].axes if panel.get_title()]
    assert titles == [
        "energy: takes 50% of the plane as in distribution",
        "knn: takes 25% of the plane as in distribution",
    ]
    drawn = np.asarray(Image.open(tmp_path / "all.png").convert("RGB")).astype(int)
    for colour in (figures.BLUE, figures.ORANGE):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(drawn - rgb).max(axis=-1) < 4).sum() > 50  # the points of a class
