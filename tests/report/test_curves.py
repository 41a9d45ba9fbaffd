"""ROAD's results as a table, files and pictures."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxood.perturbation.results import RANDOM, summary
from jaxood.perturbation.road import Curves, RoadSettings
from jaxood.report.curves import draw_curves, draw_strip, table, write_results
from jaxood.report.figures import figure_image, line

FRACTIONS = (0.0, 0.25, 0.75)


@pytest.fixture
def settings():
    return RoadSettings(fractions=FRACTIONS)


@pytest.fixture
def methods():
    def curves(method, image, morf, lerf):
        confidence = np.array([morf, lerf], np.float32)
        return Curves(image, method, 3, confidence, confidence > 0.5, 7, 1e-4)

    falls, stays = (1.0, 0.5, 0.0), (1.0, 1.0, 0.0)
    return {
        "banzhaf": {
            "a": curves("banzhaf", "a", falls, stays),
            "b": curves("banzhaf", "b", stays, stays),
        },
        RANDOM: {
            "a": curves(RANDOM, "a", (1.0, 0.75, 0.0), (1.0, 0.75, 0.0)),
            "b": curves(RANDOM, "b", (1.0, 0.75, 0.0), (1.0, 0.75, 0.0)),
        },
    }


def test_the_table_by_hand(methods, settings):
    """Trapezoids: 0.75 * 0.25 + 0.25 * 0.5 of a falling line, 0.25 + 0.25 of one that stays up."""
    lines = table(summary(methods, settings, seed=0)).splitlines()
    assert lines[0].split()[-2:] == ["beats", "random"] and set(lines[1]) == {"-"}
    assert lines[2::3] == ["MoRF (low is good)", "LeRF (high is good)", "(LeRF - MoRF) / 2"]
    areas = [line.split() for line in lines[3::3]]
    assert [cells[:2] for cells in areas] == [
        ["banzhaf", "0.4062"],  # the mean of 0.3125 and 0.5
        ["banzhaf", "0.5000"],
        ["banzhaf", "0.0469"],
    ]
    assert [cells[4:] for cells in areas] == [["1/2"], ["2/2"], []]
    assert all(line.split()[0] == "random" and "/" not in line for line in lines[4::3])
    assert max(map(len, lines)) <= 80


def test_files_hold_every_point(methods, settings, tmp_path):
    found = summary(methods, settings, seed=0)
    write_results(tmp_path, methods, found)
    with (tmp_path / "curves.csv").open() as file:
        points = list(csv.DictReader(file))
    assert len(points) == 2 * 2 * 2 * 3
    assert points[1] == {
        "image": "a",
        "method": "banzhaf",
        "order": "morf",
        "fraction": "0.25",
        "confidence": "0.5",
        "accuracy": "0.0",
    }
    with (tmp_path / "areas.csv").open() as file:
        areas = list(csv.DictReader(file))
    assert [float(areas[0][name]) for name in ("morf", "lerf", "combined")] == [
        0.3125,
        0.5,
        0.09375,
    ]
    assert {row["target"] for row in areas} == {"3"}
    as_json = json.loads((tmp_path / "curves.json").read_text())
    assert as_json["methods"]["banzhaf"]["areas"]["morf"]["mean"] == 0.40625
    assert len(list(tmp_path.iterdir())) == 3


def test_curves_are_drawn(methods, settings, tmp_path):
    draw_curves(tmp_path / "road.png", summary(methods, settings, seed=0))
    drawn = np.asarray(Image.open(tmp_path / "road.png").convert("RGB")).astype(int)
    halves = drawn[:, : drawn.shape[1] // 2], drawn[:, drawn.shape[1] // 2 :]
    for half in halves:
        assert (np.abs(half - [0, 0x72, 0xB2]).max(axis=-1) < 4).sum() > 300  # a method
        assert (np.abs(half - 64).max(axis=-1) < 4).sum() > 100  # the random map


def test_the_strip_shows_each_picture_once(tmp_path):
    colours = np.random.default_rng(1).integers(16, 250, (2, 3, 3), dtype=np.uint8)
    pictures = np.broadcast_to(colours[:, :, None, None], (2, 3, 20, 20, 3))
    rows = [("banzhaf", "morf"), ("banzhaf", "lerf")]
    path = tmp_path / "strip.png"
    draw_strip(path, pictures, rows, FRACTIONS, list(np.full((2, 3), 0.5)), "cat.png")
    drawn = np.asarray(Image.open(path).convert("RGB"))
    centres = np.array(
        [
            [np.argwhere((drawn == colours[r, c]).all(-1)).mean(0) for c in range(3)]
            for r in range(2)
        ]
    )
    assert (np.diff(centres[:, :, 0], axis=0) > 150).all()  # a row below the other
    assert (np.diff(centres[:, :, 1], axis=1) > 150).all()  # the fractions from left to right


def test_curves_that_rise_are_seen_whole(settings, tmp_path, monkeypatch):
    """The higher curve is on the right, and the panels share an axis."""
    figures = []
    monkeypatch.setattr("jaxood.report.curves.write_figure", lambda path, one: figures.append(one))
    confidence = np.array([(0.3, 0.1, 0.0), (0.3, 0.9, 0.0)], np.float32)
    several = {
        name: {"a": Curves("a", name, 3, confidence, confidence > 0.5, 7, 1e-4)}
        for name in ("banzhaf", RANDOM)
    }
    draw_curves(tmp_path / "road.png", summary(several, settings, seed=0))
    (figure,) = figures
    for panel in figure.axes:
        bottom, top = panel.get_ylim()
        assert bottom == 0 and top > 0.9


def test_many_methods_have_lines_of_their_own_and_a_legend_beside_the_curves(tmp_path, monkeypatch):
    names = [RANDOM, *(f"smoothgrad[of=guided-backprop,samples={number}]" for number in range(20))]
    looks = {tuple(line(names, name, RANDOM).values()) for name in names}
    assert len(looks) == len(names)

    figures = []
    monkeypatch.setattr("jaxood.report.curves.write_figure", lambda path, one: figures.append(one))
    curve = {"confidence": {name: np.linspace(1, 0, 5) for name in ("mean", "low", "high")}}
    method = {"images": 2, "morf": curve, "lerf": curve}
    method["areas"] = {"morf": {"mean": 0.25}, "lerf": {"mean": 0.5}}
    settings = {"imputation": "linear"}
    found = {"fractions": np.linspace(0, 0.8, 5), "settings": settings}
    draw_curves(tmp_path / "road.png", found | {"methods": dict.fromkeys(names, method)})
    (figure,) = figures
    figure_image(figure)  # places are known when it is drawn
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0
    assert not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes)
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"{name} (0.250, 0.500)" for name in names]
