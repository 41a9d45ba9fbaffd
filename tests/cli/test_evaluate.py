"""`jaxood evaluate` as a user calls it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from jaxood.cli import main

FILES = ("manifest.json", "metrics.csv", "metrics.json", "roc.png", "scores.npz", "scores.png")
METHODS = ("energy", "sfp", "knn", "sfp+nnguide", "react+msp")


def evaluate(cache, output, *arguments):
    return main(
        "evaluate", [*map(str, arguments), "--cache-dir", str(cache), "--output", str(output)]
    )


@pytest.fixture(scope="module")
def digits_run(cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("digits")
    assert evaluate(cache, output, "--method", *METHODS) == 0
    return output


def rows_of(output):
    with (output / "metrics.csv").open() as file:
        return {(row["method"], row["ood"]): row for row in csv.DictReader(file)}


def test_digits_are_learned_and_far_sets_are_told_apart(digits_run):
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert manifest["accuracy"] >= 0.97
    rows = rows_of(digits_run)
    for far in ("patches", "noise"):
        assert max(float(rows[name, far]["auroc"]) for name in METHODS) > 0.95


def test_files_agree_with_each_other(digits_run):
    assert all((digits_run / name).stat().st_size for name in FILES)
    scores = np.load(digits_run / "scores.npz")
    rows = rows_of(digits_run)
    plain = {"nnguide", "msp"}  # shown beside sfp+nnguide and react+msp
    assert {method for method, _ in rows} == {*METHODS, *plain}
    for (method, ood), row in rows.items():
        if ood == "mean":
            own = [
                float(rows[method, name]["auroc"]) for name in ("digits 6-9", "patches", "noise")
            ]
            assert float(row["auroc"]) == pytest.approx(np.mean(own), abs=1e-12)
            continue
        known, foreign = scores[f"scores/{method}/digits 0-5"], scores[f"scores/{method}/{ood}"]
        assert (int(row["n_id"]), int(row["n_ood"])) == (len(known), len(foreign))
        labels = np.repeat([1, 0], [len(known), len(foreign)])
        expected = roc_auc_score(labels, np.concatenate([known, foreign]))
        assert float(row["auroc"]) == pytest.approx(expected, abs=1e-9)
        assert float(row["auroc_low"]) <= expected <= float(row["auroc_high"])
    labels, predicted = scores["labels/digits 0-5"], scores["predicted/digits 0-5"]
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert manifest["accuracy"] == pytest.approx(np.mean(labels == predicted))
    assert len(manifest["bank"]) == manifest["data"]["digits 0-5, train"]["images"]
    as_json = json.loads((digits_run / "metrics.json").read_text())
    assert [row["method"] for row in as_json] == [method for method, _ in rows]


def test_same_command_same_bytes(cache, digits_run, tmp_path):
    assert evaluate(cache, tmp_path / "again", "--method", *METHODS) == 0
    first, second = (
        (folder / "scores.npz").read_bytes() for folder in (digits_run, tmp_path / "again")
    )
    assert first == second


def test_a_second_method_needs_no_second_pass(cache, digits_run, capsys):
    stored = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*.safetensors")}
    assert evaluate(cache, digits_run, "--method", *METHODS, "--sweep", "knn.k=5,50") == 0
    assert {path: path.stat().st_mtime_ns for path in digits_run.rglob("*.safetensors")} == stored
    table = capsys.readouterr().out
    assert "knn[k=5]" in table and "knn[k=50]" in table and "vs energy" in table


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of pictures for the digits network, with broken files among them."""
    root = tmp_path_factory.mktemp("folders")
    generator = np.random.default_rng(0)
    for name in ("known", "foreign"):
        (root / name).mkdir()
        for index in range(9):
            picture = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / name / f"{name} {index} ä.png")
    content = (root / "known" / "known 0 ä.png").read_bytes()
    (root / "foreign" / "cut.png").write_bytes(content[: len(content) // 2])
    (root / "foreign" / "text.jpg").write_text("no picture")
    (root / "foreign" / "zero.gif").write_bytes(b"")
    return root


def test_broken_files_are_counted_and_named(cache, folders, tmp_path, capsys):
    arguments = ("--id-dir", folders / "known", "--ood-dir", f"far={folders / 'foreign'}")
    assert evaluate(cache, tmp_path, "--model", "digits_cnn", "--method", "sfp", *arguments) == 0
    printed = capsys.readouterr().out
    assert "far: 3 of 12 images left out" in printed and "text.jpg: not an image" in printed
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["skipped"]["far"]) == {"cut.png", "text.jpg", "zero.gif"}
    assert rows_of(tmp_path)["sfp", "far"]["n_ood"] == "9"
    assert "known 0 ä.png" in np.load(tmp_path / "scores.npz")["ids/in distribution"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "enrgy"], "Did you mean energy"),
        (["--method", "energy+sfp"], "energy+sfp"),
        (["--suite", "digit"], "Did you mean digits?"),
        (["--fpr-convention", "odd"], "one of nnguide, openood, plain, sfp"),
        (["--batch-size", "0"], "0 is not at least 1"),
        (["--model", "resnet5"], "Did you mean resnet50"),
        (["--model", "resnet50"], "convert"),
        (["--weights", "nothing.safetensors"], "nothing.safetensors"),
        (["--id-dir", "KNOWN"], "--ood-dir: got nothing"),
        (["--id-dir", "KNOWN", "--ood-dir", "FOREIGN"], "--weights: got nothing"),
        (["--id-dir", "NOWHERE", "--ood-dir", "FOREIGN"], "NOWHERE, wanted a folder"),
        (["--id-dir", "EMPTY", "--ood-dir", "FOREIGN"], "EMPTY without an image"),
        (["--id-dir", "KNOWN", "--ood-dir", "FOREIGN", "--suite", "digits"], "one of them"),
        (
            [
                "--id-dir",
                "KNOWN",
                "--ood-dir",
                "FOREIGN",
                "--model",
                "digits_cnn",
                "--method",
                "knn",
            ],
            "Give --train-dir",
        ),
        (["--set", "knn.k=many", "--method", "knn"], "wanted a whole number"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_input_is_one_line(cache, folders, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {
        "KNOWN": folders / "known",
        "FOREIGN": folders / "foreign",
        "EMPTY": tmp_path / "empty",
    }
    arguments = [places.get(argument, argument) for argument in arguments]
    message = message.replace("EMPTY", str(tmp_path / "empty"))
    assert evaluate(cache, tmp_path / "output", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "output").exists()


def test_an_output_that_is_a_file_is_one_line(cache, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert evaluate(cache, output) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{tmp_path / 'file'} is no writable folder" in line
    assert (tmp_path / "file").read_text() == "mine"
