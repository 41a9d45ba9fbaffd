"""`jaxood attribute` with a model whose maps are known: its classes are red, green and blue."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.attribution.heatmap import heatmap
from jaxood.cli import main
from jaxood.data.class_names import find_class, imagenet_names, imagenet_wnids
from jaxood.errors import UsageError
from jaxood.report.pictures import palette

MODEL = '''
import jax
import jax.numpy as jnp
from flax import nnx
from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, relu
from jaxood.heads import LinearHead
from jaxood.outputs import model_outputs
from jaxood.preprocessing import Preprocessing


class Colours(nnx.Module):
    """Each channel of the feature map is a colour, each class one channel."""

    preprocessing = Preprocessing(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    head = LinearHead(20.0 * jnp.eye(3), jnp.zeros(3))

    def __call__(self, images):
        n, h, w, c = images.shape
        features = images.reshape(n, 4, h // 4, 4, w // 4, c).mean((2, 4))
        return model_outputs(self.head, features.mean((1, 2)), features)


def build():
    return Colours()


def build_staged():
    """Two layers of random weights, the first strides."""
    classifier = LinearClassifier(4, 3)
    stem, top = Conv(3, 4, 4, 4, 0, activation=relu), Conv(4, 4, 3, 2, activation=relu)
    model = Backbone({"stem": stem, "top": top}, classifier)
    for i, parameter in enumerate((stem.kernel, top.kernel, classifier.kernel)):
        parameter[...] = 3 * jax.random.normal(jax.random.key(i), parameter[...].shape)
    model.preprocessing = Colours.preprocessing
    return model
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The model and three photographs: red upper left, blue lower right, one green and broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colour_model.py").write_text(MODEL)
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:8, :8, 0] = pixels[24:, 16:24, 2] = 255
    Image.fromarray(pixels).save(photos / "a red one.png")
    pixels[:8, :8, 0] = 90
    Image.fromarray(pixels).save(photos / "bläu.png")
    (photos / "text.jpg").write_text("no image")
    return tmp_path


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def attribute(*arguments):
    return main("attribute", ["photos", "--model", "colour_model:build", *arguments])


def test_maps_pictures_and_predictions(folder, capsys):
    methods = ("banzhaf", "grad-cam", "score-cam")
    assert attribute("--method", *methods, "--output", "out", "--top", "2") == 0
    printed = capsys.readouterr().out
    assert "1 of 3 images left out" in printed and "text.jpg" in printed
    assert "a red one.png: class 0" in printed

    arrays = np.load("out/maps.npz")
    assert [id.rsplit("/")[-1] for id in arrays["ids"]] == ["a red one.png", "bläu.png"]
    np.testing.assert_array_equal(arrays["target"], [0, 2])
    for method in methods:
        assert arrays[method].shape == (2, 4, 4)
        peaks = [np.unravel_index(own.argmax(), (4, 4)) for own in arrays[method]]
        assert peaks == [(0, 0), (3, 2)], method

    found = json.loads((folder / "out" / "predictions.json").read_text())
    assert list(found["skipped"]) == ["photos/text.jpg"]
    red = found["images"][0]
    # Red covers 1/16 of the image, blue as much: exp(20/16) each against 1 for green.
    share = np.exp(20 / 16) / (2 * np.exp(20 / 16) + 1)
    assert [entry["name"] for entry in red["predicted"]] == ["class 0", "class 2"]
    assert red["target"] == red["predicted"][0]
    assert red["target"]["probability"] == pytest.approx(share, abs=1e-5)

    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["data"]["images"]["skipped"] == found["skipped"]
    assert manifest["arguments"]["methods"] == list(methods)

    image = pixels_of("photos/a red one.png").astype(np.float32)
    heat = np.asarray(heatmap(arrays["banzhaf"][:1], (32, 32)))[0]
    expected = 0.5 * image + 0.5 * palette()[np.round(255 * heat).astype(int)]
    drawn = pixels_of("out/overlays/00000-a red one.banzhaf.png").astype(np.float32)
    np.testing.assert_allclose(drawn, expected, atol=4)
    assert len(list((folder / "out" / "overlays").iterdir())) == 6
    assert pixels_of("out/grid.png").shape[1] > 4 * 200


def test_pictures_are_whole_and_squares_when_asked_for(folder, caplog, monkeypatch):
    """A wide photograph: colours over what the model saw, nothing over the rest; a strip each."""
    monkeypatch.setattr("jaxood.flows.attribute.BATCH", 2)  # it is the first of the second one
    wide = np.random.default_rng(0).integers(1, 255, (32, 80, 3), dtype=np.uint8)
    long_name = "long" * 40
    Image.fromarray(wide).save(folder / "photos" / f"{long_name}.png")
    methods = ("banzhaf", "grad-cam")
    assert attribute("--method", *methods, "--output", "out", "--strips", "2") == 0
    assert caplog.messages == ["strips of the first 2 of 3 images"]
    stem = f"00002-{long_name[:40]}"
    drawn = pixels_of(f"out/overlays/{stem}.banzhaf.png")
    assert drawn.shape == wide.shape
    np.testing.assert_array_equal(drawn[:, :22], wide[:, :22])
    np.testing.assert_array_equal(drawn[:, 58:], wide[:, 58:])
    arrays = np.load("out/maps.npz")
    heat = np.asarray(heatmap(arrays["banzhaf"][2:], (32, 32)))[0]
    colours = palette()[np.round(255 * heat).astype(int)]
    expected = 0.5 * wide[:, 24:56] + 0.5 * colours
    np.testing.assert_allclose(drawn[:, 24:56].astype(float), expected, atol=4)
    strips = sorted(path.name for path in (folder / "out" / "strips").iterdir())
    assert strips == ["00000-a red one.png", "00001-bläu.png"]
    assert "data:image/jpeg" in (folder / "out" / "report.html").read_text()

    options = ("--cropped", "--strips", "0", "--figures", "svg")
    assert attribute("--method", *methods, "--output", "cut", *options) == 0
    square = pixels_of(f"cut/overlays/{stem}.banzhaf.png")
    assert square.shape == (32, 32, 3)
    np.testing.assert_allclose(square.astype(float), expected, atol=4)
    assert not (folder / "cut" / "strips").exists()
    assert (folder / "cut" / "grid.svg").exists()


def test_target_alpha_colours_and_grid(folder):
    options = ("--target", "2", "--alpha", "1", "--colours", "gray", "--scale", "unit")
    assert attribute("--method", "hirescam", *options, "--grid", "1", "--output", "out") == 0
    arrays = np.load("out/maps.npz")
    np.testing.assert_array_equal(arrays["target"], [2, 2])
    assert np.unravel_index(arrays["hirescam"][0].argmax(), (4, 4)) == (3, 2)
    drawn = pixels_of("out/overlays/00000-a red one.hirescam.png")
    assert (drawn[..., 0] == drawn[..., 1]).all()  # grey: nothing of the red image is left
    heat = np.asarray(heatmap(arrays["hirescam"][:1], (32, 32), "unit"))[0]
    np.testing.assert_allclose(drawn[..., 0], 255 * heat, atol=1)
    one = pixels_of("out/grid.png")
    attribute("--method", "hirescam", "--output", "two")
    assert len(pixels_of("two/grid.png")) > len(one) + 200


def test_batches_do_not_change_the_maps(folder):
    """Eight devices and one batch against a batch an image, of which the last are padding."""
    methods = ("smoothgrad-cam++", "score-cam", "randomcam")
    attribute("--method", *methods, "--output", "one")
    (folder / "photos" / "0.png").write_bytes((folder / "photos" / "bläu.png").read_bytes())
    attribute("--method", *methods, "--output", "two", "--seed", "0", "--batch-size", "16")
    one, two = np.load("one/maps.npz"), np.load("two/maps.npz")
    for method in methods:
        np.testing.assert_allclose(two[method][1:], one[method], atol=1e-6)
        np.testing.assert_array_equal(two[method][0], two[method][2])
    attribute("--method", "randomcam", "--output", "three", "--seed", "1")
    assert np.abs(np.load("three/maps.npz")["randomcam"] - two["randomcam"]).max() > 1e-3


def _named(method, files):
    """Maps are called by the method and its parameters: "banzhaf[coalitions=8]"."""
    (name,) = (name for name in files if name.partition("[")[0] == method)
    return name


@pytest.mark.long
def test_parameters_take_effect(folder):
    def run(name, methods, *options):
        layer = ("--layer", "stem") if "smoothgrad-cam++" in methods else ()
        model = ("--model", "colour_model:build_staged")
        options = (*model, "--method", *methods, *layer, *options)
        assert attribute(*options, "--output", name) == 0
        arrays = np.load(f"{name}/maps.npz")
        return {method: arrays[_named(method, arrays.files)] for method in methods}

    both = ("banzhaf", "smoothgrad-cam++")
    plain = run("plain", both)
    assert plain["banzhaf"].shape == (2, 4, 4) and plain["smoothgrad-cam++"].shape == (2, 8, 8)
    for changed in (
        run("fewer", both, "--coalitions", "8", "--samples", "1"),
        run("auto", both[:1], "--coalitions", "auto"),
        run("energy", both[:1], "--explain", "energy"),
    ):
        for method, maps in changed.items():
            assert np.abs(maps - plain[method]).max() > 1e-5 * np.abs(plain[method]).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "banzhav"], "--method: got 'banzhav'.*Did you mean banzhaf"),
        (
            ["--method", "sobel", "--layer", "x"],
            "--layer: got 'x', wanted a method that has it, which sobel has not",
        ),
        (["--method", "grad-cam", "--layer", "x"], "--layer: got 'x', wanted none"),
        (["--coalitions", "1"], "banzhaf.coalitions: got 1, wanted 2 to 65536"),
        (["--target", "3"], "--target: got '3', wanted an index below 3"),
        (["--target", "clas 1"], "Did you mean class 1"),
        (["--colours", "rainbouw"], "--colours: got 'rainbouw'"),
        (["--alpha", "2"], "--alpha: got '2', wanted a number above 0 and at most 1"),
        (["--strips", "-1"], "--strips: got -1, wanted at least 0"),
    ],
)
def test_wrong_arguments_are_one_line(folder, capsys, arguments, message):
    assert attribute("--output", "out", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line
    assert not (folder / "out").exists()


def test_no_decodable_image_is_one_line(folder, capsys):
    for path in (folder / "photos").glob("*.png"):
        path.unlink()
    assert attribute("--output", "out") == 2
    assert "none of which can be decoded" in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out" / "maps.npz").exists()


def test_classes_by_index_name_and_wordnet_id():
    names = imagenet_names()
    assert len(set(names)) == len(set(imagenet_wnids())) == 1000
    assert find_class("281", names) == find_class("tabby", names) == 281
    assert find_class("n02123045", names) == 281
    with pytest.raises(UsageError, match="index below 1000"):
        find_class("1000", names)
    with pytest.raises(UsageError, match="^target"):
        find_class("n02123045", ("class 0", "class 1"))


def test_images_that_went_have_no_overlay(folder, caplog):
    found = jaxood.attribute("colour_model:build", "photos")
    count = len(found.indices)
    found.save("whole")
    assert len(list((folder / "whole" / "overlays").iterdir())) == count and not caplog.messages
    first, *others = [folder / "photos" / name for name in found.ids]
    first.unlink()
    found.save("less")
    assert len(list((folder / "less" / "overlays").iterdir())) == count - 1
    assert caplog.messages == ["no overlays of images that are gone: 1"]
    for path in others:
        path.unlink()
    found.save("none")
    kept = {path.name for path in (folder / "none").iterdir()}
    assert kept == {"maps.npz", "predictions.json", "report.html", "manifest.json"}
    with pytest.raises(UsageError, match="images: got none that can be read again"):
        found.show()
