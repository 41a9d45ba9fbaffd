"""From nothing to a yes or no for each image, as a user of the console command has it."""

import csv
import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from jaxood.cli import main
from jaxood.data.digits import digits_ood, digits_train_and_test
from jaxood.detection import calibrate, detect, export
from jaxood.detectors.methods import parse_method
from jaxood.detectors.saved import load_detector
from jaxood.errors import UsageError
from jaxood.models.loading import load_model
from jaxood.pipeline import extract, score
from jaxood.training import digits_weights


@pytest.fixture(scope="module")
def model(cache):
    return load_model("digits_cnn", digits_weights(cache))


@pytest.fixture(scope="module")
def detector_file(cache, model):
    path = cache / "detector.safetensors"
    arguments = ["--cache-dir", str(cache), "--output", str(path), "--method", "sfp+knn"]
    assert main("fit", [*arguments, "--set", "knn.k=5", "--bank-fraction", "0.5"]) == 0
    return path


@pytest.fixture
def folder(tmp_path):
    """Twelve digits, twelve windows of photographs, a grey digit, three files that are no image."""
    folder = tmp_path / "näme with blanks"
    folder.mkdir()
    _, known = digits_train_and_test()
    foreign = digits_ood()["patches"]
    for number in range(12):
        Image.fromarray(known.images[25 * number]).save(folder / f"digit {number:02}.png")
        Image.fromarray(foreign.images[number]).save(folder / f"patch {number:02}.png")
    Image.fromarray(known.images[0][..., 0]).save(folder / "grey.png")
    whole = io.BytesIO()
    Image.fromarray(np.tile(known.images[0], (8, 8, 1))).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[:300])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    return folder


def run_detect(capsys, *arguments):
    code = main("detect", list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_fit_tells_what_it_did(cache, detector_file, capsys, tmp_path):
    path = tmp_path / "again.safetensors"
    arguments = ["--cache-dir", str(cache), "--output", str(path), "--method", "sfp+knn"]
    assert main("fit", [*arguments, "--set", "knn.k=5", "--bank-fraction", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "fitted on 379 of 758 training images" in printed
    assert "309 of 325 in-distribution images reach it" in printed
    assert path.read_bytes() == detector_file.read_bytes()
    detector = load_detector(path)
    assert len(detector.bank) == 379
    assert detector.classes[5] == "class 5"


def test_verdicts_are_those_of_the_pipeline(model, detector_file):
    detector = load_detector(detector_file)
    _, known = digits_train_and_test()
    foreign = digits_ood()["patches"]
    for images, least, most in ((known, 0.94, 0.96), (foreign, 0.0, 0.2)):
        features = extract(model, images, detector.method.extractors)
        expected = score(detector.method, detector.state, features, model.module.head)
        batches = [verdicts for verdicts, _ in detect(model, detector, images, batch_size=24)]
        assert len(batches) == -(-len(images) // 24)
        verdicts = [verdict for batch in batches for verdict in batch]
        assert [verdict.place for verdict in verdicts] == list(range(len(images)))
        np.testing.assert_allclose([v.score for v in verdicts], expected, rtol=1e-5)
        assert [v.label for v in verdicts] == features.logits.argmax(axis=1).tolist()
        assert least <= np.mean([v.in_distribution for v in verdicts]) <= most


def test_folder_with_files_that_are_no_images(capsys, cache, detector_file, folder):
    code, out, err = run_detect(
        capsys, folder, "--detector", detector_file, "--cache-dir", cache, "--format", "csv"
    )
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 25
    assert all(row["image"].startswith(str(folder)) for row in rows)
    verdicts = {row["image"].rsplit("/", 1)[1]: row["verdict"] for row in rows}
    assert sum(verdicts[f"digit {number:02}.png"] == "ID" for number in range(12)) >= 9
    assert sum(verdicts[f"patch {number:02}.png"] == "OOD" for number in range(12)) >= 10
    for name in ("truncated.jpg", "text.jpg", "empty.png"):
        assert f"{folder}/{name}: " in err
    counts = [list(verdicts.values()).count(verdict) for verdict in ("ID", "OOD")]
    assert f"{counts[0]} in distribution, {counts[1]} not, 3 left out; sfp+knn, threshold" in err


def test_formats_tell_the_same(capsys, cache, detector_file, folder):
    read = {}
    for form in ("table", "csv", "jsonl"):
        arguments = ("--detector", detector_file, "--cache-dir", cache, "--batch-size", 8)
        code, out, _ = run_detect(capsys, folder, *arguments, "--format", form)
        assert code == 0
        read[form] = out.splitlines()
    objects = [json.loads(line) for line in read["jsonl"]]
    rows = list(csv.DictReader(read["csv"]))
    assert [{name: str(value) for name, value in own.items()} for own in objects] == rows
    header, *lines = read["table"]
    assert len(lines) == len(rows)
    assert len({line.rindex("%") for line in lines}) == 1  # aligned
    for line, own in zip(lines, objects, strict=True):
        assert line.startswith(own["image"])
        rest = line[len(own["image"]) :].split()
        assert " ".join(rest[:-3]) == own["name"]
        assert rest[-3:] == [f"{own['probability']:.1%}", f"{own['score']:.4f}", own["verdict"]]


def test_nothing_but_bad_images(capsys, cache, detector_file, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    code, out, err = run_detect(
        capsys, tmp_path / "a.png", "--detector", detector_file, "--cache-dir", cache
    )
    assert code == 0
    assert len(out.splitlines()) == 1
    assert "0 in distribution, 0 not, 1 left out" in err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("detect", ["missing.png"], "images: got missing.png"),
        ("detect", ["{png}", "--detector", "none"], "--detector: got none, wanted an existing"),
        ("fit", ["--method", "nnguid"], "Did you mean nnguide"),
        ("fit", ["--tpr", "1.5"], "--tpr"),
        ("fit", ["--train-dir", "."], "--id-dir: got nothing"),
        ("fit", ["--id-dir", "{dir}"], "--weights: got nothing"),
        ("fit", ["--model", "resnet50"], "--id-dir: got nothing"),
        ("fit", ["--method", "knn", "--set", "knn.k=800"], "knn.k: got 800, wanted 1 to 758"),
        ("fit", ["--set", "knn.k=3"], "--set: got knn.k, wanted a step"),
    ],
)
def test_wrong_input_is_one_line(capsys, cache, folder, command, arguments, message):
    names = {"png": folder / "grey.png", "dir": folder}
    arguments = [text.format(**names) for text in arguments]
    output = folder.parent / "d.safetensors"
    own = ["--output", str(output)] if command == "fit" else []
    assert main(command, [*arguments, *own, "--cache-dir", str(cache)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxood")]
    assert message in line
    assert not output.exists()


def test_detector_of_another_model_is_refused(capsys, cache, detector_file, folder):
    code, out, err = run_detect(
        capsys, folder, "--detector", detector_file, "--cache-dir", cache, "--dtype", "bfloat16"
    )
    assert (code, out) == (2, "")
    assert "--dtype: got dtype bfloat16, wanted float32, as the detector was fitted with" in err


@pytest.mark.parametrize("method", ["sfp+nnguide", "react+mahalanobis"])
def test_exported_scorer_runs_without_this_package(model, tmp_path, method):
    from jaxood.data.suites import digits_suite

    suite = digits_suite()
    detector, _ = calibrate(model, suite, parse_method(method))
    images = suite.id_test.images[:16]
    (tmp_path / "scorer.bin").write_bytes(export(model, detector, 16))
    np.save(tmp_path / "images.npy", images)
    program = """
        import sys
        import jax, numpy as np
        scorer = jax.export.deserialize(bytearray(open("scorer.bin", "rb").read()))
        found = scorer.call(np.load("images.npy"))
        assert not any(name.split(".")[0] in ("jaxood", "flax") for name in sys.modules)
        np.savez("found.npz", **found)
    """
    command = [sys.executable, "-c", "import jax.export\n" + textwrap.dedent(program)]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npz")
    ((verdicts, _),) = detect(model, detector, suite.id_test.subset(np.arange(16)), 16)
    np.testing.assert_allclose(found["score"], [v.score for v in verdicts], rtol=1e-4)
    assert found["in_distribution"].tolist() == [v.in_distribution for v in verdicts]
    assert found["logits"].argmax(axis=1).tolist() == [v.label for v in verdicts]
    assert found["logits"].shape == (16, 6)


def test_export_needs_the_bank_on_one_device(model):
    from jaxood.data.suites import digits_suite

    detector, _ = calibrate(model, digits_suite(), parse_method("knn[memory=host]"))
    with pytest.raises(UsageError, match="--export: got memory=host, wanted a bank with"):
        export(model, detector, 8)
