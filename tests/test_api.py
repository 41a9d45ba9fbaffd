"""The public face as a user has it: arrays, a model and images, studies."""

import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.demo.digits import digits_weights
from jaxood.demo.photos import photos_weights
from jaxood.flows.evaluation import FILES

# The block of the design document, but for paths and the suite: `WEIGHTS`, `TRAIN`, `CALIBRATE`,
# `PHOTOS`, `CAT`, `SUITE`, `FILE`, `FOLDER` and `image` are given.
ARRAYS = """
knn = jaxood.detector("knn", k=50).fit(train_features)
scores = knn.score(test_features)
vim = jaxood.detector("react+vim").fit(features, head=jaxood.LinearHead(w, b))
"""
IMAGES = """
model = jaxood.load_model(WEIGHTS)
ood = jaxood.fit(model, "sfp+nnguide", train=TRAIN, calibrate=CALIBRATE, tpr=0.95)
for verdict in ood.detect(PHOTOS): ...
ood.detect_image(image)
ood.save(FILE); jaxood.load_detector(FILE, model)
"""
STUDIES = """
result = jaxood.evaluate(model, jaxood.suite(SUITE), METHODS, seed=0)
print(result); result.save(FOLDER / "x")
maps = jaxood.attribute(model, CAT, ["banzhaf", "grad-cam"]); maps.show()
road = jaxood.road(model, PHOTOS, ["banzhaf", "score-cam"], steps=2)

jaxood.list_detectors("*nn*"); jaxood.list_models()
jaxood.list_attributions(); jaxood.list_suites()
"""


def run(block: str, **names) -> dict:
    names = {"jaxood": jaxood, **names}
    exec(textwrap.dedent(block), names)
    return names


def files(folder: Path, images) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


def test_a_scorer_on_arrays_takes_one_import_and_two_lines():
    generator = np.random.default_rng(0)
    train, test = (generator.standard_normal((n, 32)).astype(np.float32) for n in (500, 20))
    kernel = generator.standard_normal((32, 5)).astype(np.float32)
    found = run(
        ARRAYS,
        train_features=train,
        test_features=test,
        features=train,
        w=kernel,
        b=np.zeros(5, np.float32),
    )
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, test)]
    expected = np.sort(unit[1] @ unit[0].T, axis=1)[:, -50]
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
    assert found["vim"].score(test).shape == (20,)


def test_the_block_on_digits(cache, tmp_path, capsys):
    suite = jaxood.suite("digits")
    folders = {
        name: files(tmp_path / name, images)
        for name, images in (
            ("train", suite.train.images[:200]),
            ("val", suite.id_test.images[:60]),
            ("photos", suite.ood["patches"].images[:3]),
        )
    }
    picture = Image.fromarray(suite.id_test.images[0]).resize((40, 30))
    names = run(
        IMAGES + STUDIES,
        WEIGHTS=str(digits_weights(cache)),
        TRAIN=str(folders["train"]),
        CALIBRATE=folders["val"],
        PHOTOS=str(folders["photos"]),
        CAT=folders["photos"] / "000.png",
        SUITE="digits",
        METHODS=["sfp", "knn"],
        FOLDER=tmp_path,
        FILE=tmp_path / "detector.safetensors",
        image=picture,
    )
    verdicts = list(names["ood"].detect(folders["photos"]))
    assert [verdict.id for verdict in verdicts] == ["000.png", "001.png", "002.png"]
    assert "knn" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "x").iterdir()} == {*FILES}
    assert set(names["road"].areas()) == {"banzhaf", "score-cam", "random"}
    assert names["maps"].maps["grad-cam"].shape == (1, 4, 4)


@pytest.mark.long
def test_the_block_on_photographs(cache, tmp_path):
    pytest.importorskip("shapiq_games")
    photographs = jaxood.suite("photos").id_test
    folder = Path(photographs.root)
    first = sorted(folder.iterdir())[0]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / first.name).write_bytes(first.read_bytes())
    with Image.open(first) as image:
        run(
            (IMAGES + STUDIES).replace('"score-cam"', '"hirescam"'),
            WEIGHTS=photos_weights(cache),
            TRAIN=photographs,
            CALIBRATE=str(folder),
            PHOTOS=tmp_path / "photos",
            CAT=first,
            SUITE="photos",
            METHODS=["sfp", "msp"],
            FOLDER=tmp_path,
            FILE=tmp_path / "detector.safetensors",
            image=image,
        )


def test_importing_is_light_and_names_are_complete():
    program = """
        import sys
        import jaxood
        heavy = {"jax", "flax", "tensorflow", "torch", "matplotlib", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
        assert set(jaxood.__all__) == set(jaxood._HOMES) | {"__version__"}
        for name in jaxood.__all__:
            getattr(jaxood, name)
        assert not {"tensorflow", "torch"} & set(sys.modules)
        import jax
        assert not jax._src.xla_bridge.backends_are_initialized()
        try:
            jaxood.nothing
        except AttributeError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "module 'jaxood' has no attribute 'nothing'\n"
    assert jaxood.__version__ == version("jaxood")
    assert (Path(jaxood.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    "command", [["-m", "jaxood"], ["-c", "from jaxood.cli import entry; entry()"]]
)
def test_version(command):
    done = subprocess.run(
        [sys.executable, *command, "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"jaxood {jaxood.__version__}\n"


def test_listings_tell_needs_parameters_and_papers():
    (knn,) = jaxood.list_detectors("knn")
    assert knn.kind == "score" and ("k", 10) in knn.parameters and "ICML 2022" in knn.paper
    assert set(knn.needs) == {"training images", "penultimate"}
    (scaling,) = jaxood.list_detectors("temp_scaling")
    assert scaling.needs == ("validation images", "labels")
    assert {entry.name for entry in jaxood.list_detectors("*nn*")} >= {"knn", "nnguide"}
    entries = [*jaxood.list_detectors(), *jaxood.list_attributions(), *jaxood.list_measures()]
    for entry in entries:
        assert re.match(r"[A-Z`].*[^:]$", entry.summary) and "|" not in entry.summary, entry.name
        assert entry.paper or entry.name in ("randomcam", "sobel"), entry.name  # baselines
    assert "images" in next(e for e in entries if e.name == "odin").needs
    assert "labels" in next(e for e in entries if e.name == "she").needs
    assert {entry.name for entry in jaxood.list_suites()} > {"digits", "photos", "imagenet-sfp"}
    assert [entry.name for entry in jaxood.list_suites("openood-i*")] == [
        "openood-imagenet",
        "openood-imagenet200",
    ]
    assert [e.name for e in jaxood.list_models("resnet50.a1*")] == ["resnet50.a1_in1k"]
