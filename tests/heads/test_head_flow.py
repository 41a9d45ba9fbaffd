"""A weights file gets a head: by images, on the command line and in Python, and used afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from references import mobilenet_checkpoint
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import jaxood
from jaxood.cli import main
from jaxood.data.images import Arrays
from jaxood.demo.digits import digits_weights
from jaxood.errors import UsageError
from jaxood.models.loading import network_of, parameter_shapes
from jaxood.models.weights_file import open_weights, write_weights


@pytest.fixture(scope="module")
def backbone(cache, tmp_path_factory):
    """The digits network without its head."""
    source, info = open_weights(digits_weights(cache))
    bare = replace(info, num_classes=0)
    path = tmp_path_factory.mktemp("backbone") / "bare.safetensors"
    empty = {"classifier/kernel": np.zeros((64, 0)), "classifier/bias": np.zeros(0)}

    def value(name):
        return empty[name] if name in empty else source.get_tensor(name)

    write_weights(path, parameter_shapes(network_of(bare)), value, bare)
    return path


def known(part: slice, name: str) -> Arrays:
    """Digits under names: nothing but their order tells their numbers."""
    images = jaxood.suite("digits").train
    names = tuple("abcdef")
    return Arrays(images.images[part], images.labels[part], name, False, names)


def pooled(cache, images: Arrays) -> np.ndarray:
    model = jaxood.load_model(digits_weights(cache))
    normalised = model.preprocessing.normalise(jnp.asarray(images.images))
    return np.float64(model.module(normalised).pooled)


@pytest.mark.long
def test_a_linear_probe_on_images_is_scikit_learns(cache, backbone, tmp_path):
    train, validation = known(slice(200), "train"), known(slice(200, 300), "validation")
    output = tmp_path / "w.safetensors"
    report = jaxood.head(backbone, output, train=train, validation=validation, l2=0.01)
    scaler = StandardScaler().fit(pooled(cache, train))
    expected = LogisticRegression(C=1 / (0.01 * 200), tol=1e-10, max_iter=10_000)
    expected.fit(scaler.transform(pooled(cache, train)), train.labels)
    rows = scaler.transform(pooled(cache, validation))
    assert report.validation_accuracy == expected.score(rows, validation.labels)
    assert f"validation accuracy {100 * report.validation_accuracy:.2f} %" in str(report)

    model = jaxood.load_model(output)
    assert model.class_names == tuple("abcdef")
    normalised = model.preprocessing.normalise(jnp.asarray(validation.images))
    logits = np.asarray(model.module(normalised).logits)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, expected.predict_proba(rows), atol=5e-3)
    _, info = open_weights(output)
    assert info.head_from.startswith("linear probe, l2 0.01, on 200 images, ")
    assert info.source_sha256 == open_weights(backbone)[1].source_sha256


@pytest.mark.parametrize("kind", [pytest.param("linear", marks=pytest.mark.long), "class-mean"])
def test_what_is_held_out_is_drawn_by_the_seed(backbone, tmp_path, kind):
    train, test = known(slice(60), "train"), known(slice(300, 400), "test")
    files = []
    for seed in (0, 0, 1):
        output = tmp_path / "w.safetensors"
        report = jaxood.head(backbone, output, kind, train=train, seed=seed)
        files.append(output.read_bytes())
        assert report.train_accuracy > 0.9 < report.validation_accuracy
    assert files[0] == files[1] and (kind == "linear" or files[0] != files[2])
    model = jaxood.load_model(output)
    sets = jaxood.Suite("digits", train, test, {"ood": jaxood.suite("digits").ood["digits 6-9"]})
    result = jaxood.evaluate(model, sets, ["msp", "knn"])
    assert result.accuracy > 0.9


def test_a_head_for_other_classes_takes_the_place_of_the_old(cache, tmp_path):
    train = known(slice(100), "train")
    odd = Arrays(train.images, train.labels % 2, "train", False, ("even", "odd"))
    jaxood.head(digits_weights(cache), tmp_path / "w.safetensors", "class-mean", train=odd)
    model = jaxood.load_model(tmp_path / "w.safetensors")
    assert (model.classes, model.class_names) == (2, ("even", "odd"))


def test_names_that_are_given_tell_the_order(cache, tmp_path):
    train = known(slice(120), "train")
    output = tmp_path / "w.safetensors"
    how = {"train": train, "validation": train, "classes": list("fedcba")}
    report = jaxood.head(digits_weights(cache), output, "class-mean", **how)
    model = jaxood.load_model(output)
    assert model.class_names == tuple("fedcba")
    normalised = model.preprocessing.normalise(jnp.asarray(train.images))
    found = np.asarray(model.module(normalised).logits).argmax(axis=1)
    assert np.mean(found == 5 - train.labels) == report.train_accuracy > 0.9


def test_without_a_head_nothing_runs(backbone, capsys):
    line = "weights: got .*, a backbone without a head, wanted one with a head. Make it one with"
    with pytest.raises(UsageError, match=line):
        jaxood.load_model(backbone)
    assert main("attribute", ["x.png", "--weights", str(backbone)]) == 2
    assert "jaxood attribute: --weights: got" in capsys.readouterr().err


def folder(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(root / name / f"{index}.png")
    return root


WRONG = {
    "nothing": ([], "--train-dir: got nothing, wanted labelled training images, or texts"),
    "both": (["--train-dir", "x", "--texts", "y"], "--train-dir: got images and texts"),
    "kind": (["--train-dir", "x", "--kind", "lin"], "--kind: got 'lin', wanted one of class-mean"),
    "l2": (["--train-dir", "x", "--l2", "0"], "--l2: got 0.0, wanted above 0, for a linear"),
    "l2 of means": (["--train-dir", "x", "--kind", "class-mean", "--l2", "1"], "--l2: got 1.0"),
    "flat": (["--train-dir", "two/a"], "--train-dir: got images without classes"),
    "one class": (["--train-dir", "one"], "--train-dir: got images of one class, wanted two"),
    "one image": (["--train-dir", "few"], "--train-dir: got one image a class, wanted more, or"),
    "numbers": (
        ["--train-dir", "numbers"],
        "--train-dir: got 4 classes, 2 of them without images, such as [0]",
    ),
    "names": (["--train-dir", "two", "--classes", "names.txt"], "--train-dir: got 3 classes, 1 of"),
    "flat validation": (
        ["--train-dir", "two", "--val-dir", "two/a"],
        "--val-dir: got images without classes",
    ),
    "no texts": (["--texts", "no.npz"], "--texts: got texts for digits_cnn, which has no space"),
    "texts and validation": (["--texts", "x", "--val-dir", "two"], "--val-dir: got images, wanted"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(backbone, tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "two", a=4, b=4)
    folder(tmp_path / "one", a=4)
    folder(tmp_path / "few", a=1, b=1)
    folder(tmp_path / "numbers", **{"1": 4, "3": 4})
    Path("names.txt").write_text("a\nb\nc\n")
    arguments, line = WRONG[case]
    command = ["--weights", str(backbone), "--output", "w.safetensors", *arguments]
    assert main("head", command) == 2
    printed = capsys.readouterr()
    assert f"jaxood head: {line}" in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" and not Path("w.safetensors").exists()


@pytest.mark.long
def test_a_backbone_of_mobilenet_with_every_command(tmp_path, capsys, cache):
    torch = pytest.importorskip("torch")
    kept = torch.load(mobilenet_checkpoint(), weights_only=True)
    kept = {key: value for key, value in kept.items() if not key.startswith("classifier")}
    torch.save(kept, tmp_path / "backbone.pth")
    bare, weights = str(tmp_path / "bare.safetensors"), str(tmp_path / "w.safetensors")
    convert = ["--checkpoint", str(tmp_path / "backbone.pth"), "--output", bare]
    assert main("convert", [*convert, "--tag", "IMAGENET1K_V1"]) == 0
    assert "mobilenet_v2, tag IMAGENET1K_V1, a backbone without a head" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name, hue in (("red", 0), ("blue", 2)):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(6):
                picture = rng.integers(0, 90, (40, 50, 3), dtype=np.uint8)
                picture[..., hue] += 120
                Image.fromarray(picture).save(tmp_path / part / name / f"{index}.png")
    train, val = str(tmp_path / "train"), str(tmp_path / "val")
    command = ["--weights", bare, "--output", weights, "--train-dir", train, "--val-dir", val]
    assert main("head", [*command, "--quiet"]) == 0
    assert "validation accuracy 100.00 %" in capsys.readouterr().out
    common = ["--weights", weights, "--cache-dir", str(cache), "--quiet"]
    out, detector = str(tmp_path / "out"), str(tmp_path / "detector.safetensors")
    sets = ["--train-dir", train, "--id-dir", val]
    ood = str(tmp_path / "train" / "red")
    evaluate = [*common, *sets, "--ood-dir", f"x={ood}", "--output", out]
    assert main("evaluate", [*evaluate, "--method", "sfp", "mahalanobis"]) == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())
    assert main("fit", [*common, *sets, "--method", "knn", "--output", detector]) == 0
    capsys.readouterr()
    assert main("detect", [val, *common[:2], "--detector", detector, "--format", "jsonl"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in verdicts] == ["blue"] * 6 + ["red"] * 6
    assert main("attribute", [ood, *common, "--method", "banzhaf", "--output", out + "2"]) == 0
