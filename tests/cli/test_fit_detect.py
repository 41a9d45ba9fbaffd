"""From nothing to a yes or no for each image, as a user of the console command has it."""

import csv
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from damage import flipped
from PIL import Image
from test_readme import block

import jaxood
from jaxood.cli import main
from jaxood.data.digits import digits_ood, digits_train_and_test
from jaxood.demo.digits import digits_weights
from jaxood.detectors.saved import load_detector
from jaxood.detectors.scoring import score_rows
from jaxood.errors import UsageError
from jaxood.flows.scoring import outputs_of
from jaxood.runner.runner import Runner


@pytest.fixture(scope="module")
def model(cache):
    return jaxood.load_model(digits_weights(cache))


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
    path.write_text("of before")
    arguments = ["--cache-dir", str(cache), "--output", str(path), "--method", "sfp+knn"]
    assert main("fit", [*arguments, "--set", "knn.k=5", "--bank-fraction", "0.5"]) == 0
    printed, told = capsys.readouterr()
    assert f"replaced: {path}" in told
    assert "fitted on 379 training images" in printed
    assert "309 of 325 in-distribution images reach it" in printed
    assert path.read_bytes() == detector_file.read_bytes()
    detector = load_detector(path)
    assert len(detector.bank) == 379
    assert detector.classes[5] == "class 5"


def test_verdicts_are_those_of_the_runner(model, detector_file):
    detector = jaxood.load_detector(detector_file, model)
    method, state = detector.fitted.method, detector.fitted.state
    _, known = digits_train_and_test()
    foreign = digits_ood()["patches"]
    for images, least, most in ((known, 0.94, 0.96), (foreign, 0.0, 0.2)):
        features = Runner(model).extract(images, tuple(method.extractors.values()))
        expected = score_rows(method, state, outputs_of(model, features), model.head)
        verdicts = list(detector.detect(images, batch_size=24))
        assert [verdict.index for verdict in verdicts] == list(range(len(images)))
        np.testing.assert_allclose([v.score for v in verdicts], expected, rtol=1e-5)
        assert [v.label for v in verdicts] == features.predicted.tolist()
        assert least <= np.mean([v.in_distribution for v in verdicts]) <= most
        result = jaxood.detect(detector, images)
        assert [v.id for v in result] == list(images.ids)
        np.testing.assert_allclose([v.score for v in result], expected, rtol=1e-5)


def test_one_image_of_any_size(model, detector_file):
    """Equal to the file of the same picture through a folder; compiled once."""
    detector = jaxood.load_detector(detector_file, model)
    generator = np.random.default_rng(0)
    for shape in ((8, 8, 3), (30, 17, 3), (9, 40)):
        array = generator.integers(0, 256, shape, dtype=np.uint8)
        (expected,) = detector.detect([Image.fromarray(array)])
        for image in (array, Image.fromarray(array)):
            found = detector.detect_image(image)
            assert (found.label, found.in_distribution) == (
                expected.label,
                expected.in_distribution,
            )
            np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)
            np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-5)
    program, _ = detector._single
    assert program.compiled()._cache_size() == 1


@pytest.mark.parametrize("image", ["cat.jpg", np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_image_is_one_line(model, detector_file, image):
    with pytest.raises(UsageError, match="^image: got .*, wanted PIL images, uint8 arrays"):
        jaxood.load_detector(detector_file, model).detect_image(image)


def test_results_are_saved_whole(model, detector_file, folder, tmp_path):
    result = jaxood.detect(jaxood.load_detector(detector_file, model), folder)
    assert len(result) == 25 and len(result.skipped) == 3
    result.save(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "verdicts.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [verdict.id for verdict in result]
    about = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert set(about["skipped"]) == {"truncated.jpg", "text.jpg", "empty.png"}
    assert str(result).startswith(f"{sum(v.in_distribution for v in result)} in distribution, ")


def test_names_of_class_folders_are_kept(cache, tmp_path, capsys):
    train, _ = digits_train_and_test()
    for digit, name in enumerate(("zero", "one", "two", "three", "four", "five")):
        (tmp_path / "train" / f"{digit}{name}").mkdir(parents=True)
        for index in np.flatnonzero(train.labels == digit)[:8]:
            file = tmp_path / "train" / f"{digit}{name}" / f"{index}.png"
            Image.fromarray(train.images[index]).save(file)
    output = tmp_path / "d.safetensors"
    data = ("--train-dir", tmp_path / "train", "--id-dir", tmp_path / "train")
    asked = ("--model", "digits_cnn", "--cache-dir", cache, "--method", "knn", "--set", "knn.k=2")
    assert main("fit", list(map(str, [*asked, *data, "--output", output]))) == 0
    assert load_detector(output).classes[3] == "3three"
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdef"))
    assert main("fit", list(map(str, [*asked, *data, "--output", output, "--classes", names]))) == 0
    assert load_detector(output).classes == tuple("abcdef")
    names.write_text("a\nb\n")
    capsys.readouterr()
    assert main("fit", list(map(str, [*asked, *data, "--output", output, "--classes", names]))) == 2
    assert "--classes: got 2 names, wanted 6" in capsys.readouterr().err


def test_a_detector_remembers_the_seed_of_its_coalitions(model, tmp_path):
    suite = jaxood.suite("digits")
    method = "sfp[coalitions=2]+energy"
    detector = jaxood.fit(model, method, calibrate=suite.id_test, seed=3)
    images = suite.ood["patches"]
    path = detector.save(tmp_path / "d.safetensors")
    (sfp,) = detector.fitted.method.extractors.values()
    three, zero = (Runner(model).extract(images, (sfp,), seed=seed) for seed in (3, 0))
    scores = [v.score for v in jaxood.load_detector(path, model).detect(images)]
    outputs = outputs_of(model, three)
    expected = score_rows(detector.fitted.method, detector.fitted.state, outputs, model.head)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert np.abs(three.extras[sfp.key] - zero.extras[sfp.key]).max() > 1e-3


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
    assert (
        f"{counts[0]} in distribution, {counts[1]} not, 3 left out; sfp+knn[k=5], threshold" in err
    )


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


def test_paths_and_archives_from_a_pipe(capsys, cache, detector_file, folder, monkeypatch):
    options = ["--detector", detector_file, "--cache-dir", cache, "--format", "csv"]
    names = [*sorted(path.name for path in folder.iterdir()), "nowhere.png"]
    code, whole, _ = run_detect(capsys, folder, *options)
    rows = csv.DictReader(io.StringIO(whole))
    expected = {row["image"].rpartition("/")[2]: row["score"] for row in rows}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, "")
    paths = "\n".join(str(folder / name) for name in names).encode()
    for content, lost in ((paths, 4), (archive.getvalue(), 3)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        code, out, err = run_detect(capsys, "-", *options, "--fail-on-ood")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert {row["image"].rpartition("/")[2]: row["score"] for row in rows} == expected
        assert code == 3 and err.count("left out: ") == lost
        assert any(row["verdict"] == "OOD" for row in rows)


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
        ("fit", ["--set", "knn.k=3"], "--set: got knn.k, wanted a part"),
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


def test_outputs_that_cannot_be_written_are_told_before_the_pass(capsys, cache, folder):
    for option in ("--output", "--export"):
        for file in (
            folder,
            folder / "text.jpg" / "d",
            "/proc/nothing/d",
            "\0",
            "",
            "a" * 300,
            "/dev/null",
        ):
            assert main("fit", [option, str(file), "--cache-dir", str(cache)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert f"{option}: got " in line and "wanted what can be written: " in line


def test_images_that_fit_leaves_out_are_named(model, folder, caplog):
    jaxood.fit(model, "energy", calibrate=folder)
    expected = ["in distribution: 3 of 28 images left out: undecodable", "  empty.png: the file is"]
    for line, start in zip(caplog.messages, expected, strict=False):
        assert line.startswith(start)
    assert len(caplog.messages) == 4


def test_detector_of_another_model_is_refused(capsys, cache, detector_file, folder):
    code, out, err = run_detect(
        capsys, folder, "--detector", detector_file, "--cache-dir", cache, "--dtype", "bfloat16"
    )
    assert (code, out) == (2, "")
    assert "--dtype: got dtype bfloat16, wanted float32, as the detector was fitted with" in err


@pytest.mark.long
@pytest.mark.parametrize("method", ["sfp+nnguide", "react+mahalanobis"])
def test_exported_scorer_runs_without_this_package(model, tmp_path, method):
    suite = jaxood.suite("digits")
    detector = jaxood.fit(model, method, train=suite.train, calibrate=suite.id_test)
    images = suite.id_test.images[:16]
    detector.export(tmp_path / "scorer.bin", 16)
    np.save(tmp_path / "images.npy", images)
    told = block("import hashlib")
    read = told.replace("np.zeros(scorer.in_avals[0].shape, np.uint8)", "np.load('images.npy')")
    assert read != told
    lines = (
        "import sys",
        read,
        "assert not {'jaxood', 'flax'} & set(sys.modules)\nnp.savez('found.npz', **found)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npz")
    verdicts = list(detector.detect(images, batch_size=16))
    np.testing.assert_allclose(found["score"], [v.score for v in verdicts], rtol=1e-4)
    assert found["in_distribution"].tolist() == [v.in_distribution for v in verdicts]
    assert found["logits"].argmax(axis=1).tolist() == [v.label for v in verdicts]
    assert found["logits"].shape == (16, 6)
    loaded = jaxood.load_scorer(tmp_path / "scorer.bin")
    np.testing.assert_allclose(loaded.call(images)["score"], found["score"], rtol=1e-5)


def test_a_scorer_whose_bytes_changed_does_not_load(model, tmp_path):
    path = tmp_path / "scorer.bin"
    detector = jaxood.fit(model, "energy", calibrate=jaxood.suite("digits").id_test)
    with pytest.raises(UsageError, match="path: got .*scorer.bin, wanted an existing scorer file"):
        jaxood.load_scorer(path)
    detector.export(path, 16)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    places = [
        *range(len(content.partition(b"\n")[0]) + 1),
        *generator.integers(0, len(content), 200),
    ]
    for changed in (*flipped(content, places, generator), content[:-1], content + b"0"):
        path.write_bytes(changed)
        with pytest.raises(UsageError, match="^path: got .*scorer.bin.*, wanted .* fit --export$"):
            jaxood.load_scorer(path)
    path.write_bytes(content.partition(b"\n")[2])  # what jax.export alone writes
    with pytest.raises(UsageError, match="wanted an exported scorer"):
        jaxood.load_scorer(path)


def test_export_needs_the_bank_on_one_device(model, tmp_path):
    suite = jaxood.suite("digits")
    method = "knn[memory=host]"
    detector = jaxood.fit(model, method, train=suite.train, calibrate=suite.id_test)
    with pytest.raises(UsageError, match="export: got memory=host, wanted a bank with"):
        detector.export(tmp_path / "scorer.bin", 8)
