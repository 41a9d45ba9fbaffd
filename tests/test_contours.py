"""The pictures of scores over a plane: what they show, and that they are drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.cli import main
from jaxood.demo import moons
from jaxood.flows import contours


@pytest.fixture(scope="module")
def layers():
    points, labels = moons.two_moons(0)
    return moons.train(jnp.asarray(points[:1000]), jnp.asarray(labels[:1000]), 0)


@pytest.mark.long
def test_network_tells_the_moons_apart(layers):
    points, labels = moons.two_moons(0)
    logits = moons.forward(layers, jnp.asarray(points[1000:])).logits
    assert np.mean(np.argmax(logits, axis=1) == labels[1000:]) > 0.99


@pytest.mark.long
def test_pictures_show_the_threshold(layers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(contours, "SIDE", 60)
    monkeypatch.setattr(contours, "train", lambda *_: layers)
    assert main("contours", ["--output", str(tmp_path), "--method", "knn", "react+energy"]) == 0
    names = ["contours-all.png", "contours-knn.png", "contours-react.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    printed = capsys.readouterr().out
    assert "knn: takes " in printed and "react: takes " in printed
    one, both = (np.asarray(Image.open(tmp_path / names[i]).convert("RGB")) for i in (1, 0))
    assert both.shape[1] > 1.8 * one.shape[1]
    white = np.all(one == 255, axis=-1)
    blue = np.all(np.abs(one.astype(int) - [0, 0x72, 0xB2]) < 20, axis=-1)
    middle = np.s_[one.shape[0] // 4 : -one.shape[0] // 4, one.shape[1] // 8 : one.shape[1] // 2]
    assert white[middle].sum() > 100  # the line
    assert blue[middle].sum() > 500  # the first moon


@pytest.mark.long
def test_similarity_takes_less_of_the_plane_than_the_classifier(layers, monkeypatch):
    monkeypatch.setattr(contours, "SIDE", 60)
    monkeypatch.setattr(contours, "train", lambda *_: layers)
    panels = jaxood.contours(("energy", "knn", "nnguide")).panels
    taken = {name: np.mean(panel.values >= panel.threshold) for name, panel in panels.items()}
    assert taken["knn"] < taken["nnguide"] < taken["energy"] < 0.6


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("sfp", "sfp, which needs a feature map, wanted methods that need features and logits"),
        ("enrgy", "Did you mean energy"),
    ],
)
def test_methods_that_cannot_be_drawn(capsys, tmp_path, method, message):
    assert main("contours", ["--output", str(tmp_path), "--method", method]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
