"""`jaxood evaluate` as a user calls it."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from jaxood.cli import main
from jaxood.flows.evaluation import FILES

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


def rows_of(output, metric="auroc"):
    """Rows of metrics.csv of one metric, by method and OOD set."""
    with (output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["method"], row["set"]): row for row in rows if row["metric"] == metric}


def test_digits_are_learned_and_far_sets_are_told_apart(digits_run):
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert manifest["accuracy"] >= 0.97
    rows = rows_of(digits_run)
    for far in ("patches", "noise"):
        assert max(float(rows[name, far]["value"]) for name in METHODS) > 0.95


def test_files_agree_with_each_other(digits_run):
    assert all((digits_run / name).stat().st_size for name in FILES)
    scores = np.load(digits_run / "scores.npz")
    rows = rows_of(digits_run)
    plain = {"nnguide", "msp"}  # shown beside sfp+nnguide and react+msp
    assert {method for method, _ in rows} == {*METHODS, *plain}
    for (method, ood), row in rows.items():
        known, foreign = scores[f"scores/{method}/digits 0-5"], scores[f"scores/{method}/{ood}"]
        assert (int(row["n_id"]), int(row["n_ood"])) == (len(known), len(foreign))
        labels = np.repeat([1, 0], [len(known), len(foreign)])
        expected = roc_auc_score(labels, np.concatenate([known, foreign]))
        assert float(row["value"]) == pytest.approx(expected, abs=1e-9)
        assert float(row["low"]) <= expected <= float(row["high"])
        assert row["group"] == ("near" if ood == "digits 6-9" else "far")
    labels, predicted = scores["labels/digits 0-5"], scores["predicted/digits 0-5"]
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert manifest["accuracy"] == pytest.approx(np.mean(labels == predicted))
    assert len(manifest["bank"]) == manifest["data"]["train"]["images"]
    as_json = json.loads((digits_run / "metrics.json").read_text())
    assert [(row["method"], row["set"]) for row in as_json if row["metric"] == "auroc"] == [*rows]
    with (digits_run / "scores.csv").open(newline="") as file:
        by_image = list(csv.DictReader(file))
    noise = [np.float32(row["sfp"]) for row in by_image if row["set"] == "noise"]
    np.testing.assert_array_equal(noise, scores["scores/sfp/noise"])
    assert len(by_image) == 325 + 714 + 500 + 500


def test_same_command_same_bytes(cache, digits_run, tmp_path):
    assert evaluate(cache, tmp_path / "again", "--method", *METHODS) == 0
    first, second = (
        (folder / "scores.npz").read_bytes() for folder in (digits_run, tmp_path / "again")
    )
    assert first == second


@pytest.mark.long
@pytest.mark.parametrize("methods", [METHODS, ("knn", "msp"), ("energy",)])
def test_other_methods_need_no_second_pass(cache, digits_run, capsys, methods, tmp_path):
    """More of them, or fewer, on the same extracted features."""
    shutil.copytree(digits_run / "features", tmp_path / "features", copy_function=shutil.copy2)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features/**/*.*")}
    sweep = ("--sweep", "knn.k=5,50") if "knn" in methods else ()
    assert evaluate(cache, tmp_path, "--method", *methods, *sweep) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features/**/*.*")} == stored
    if sweep:
        table = capsys.readouterr().out
        assert "knn[k=5]" in table and "knn[k=50]" in table


@pytest.mark.long
def test_the_plain_counterpart_has_the_same_parameters(cache, tmp_path, capsys):
    """A row "vs knn" compares with the k that was asked for, however it was asked."""
    asked = ("--method", "react+knn", "sfp+energy[temperature=1e+1]", "--set", "knn.k=50")
    assert evaluate(cache, tmp_path, *asked) == 0
    printed = capsys.readouterr().out
    assert "vs knn[k=50]" in printed and "vs energy[temperature=10.0]" in printed
    methods = {method for method, _ in rows_of(tmp_path)}
    plain = {"knn[k=50]", "energy[temperature=10.0]"}
    assert methods == plain | {"react+knn[k=50]", "sfp+energy[temperature=10.0]"}
    alone = tmp_path / "alone"
    assert evaluate(cache, alone, "--method", "knn[k=50]") == 0
    first, second = (np.load(folder / "scores.npz") for folder in (tmp_path, alone))
    key = "scores/knn[k=50]/noise"
    np.testing.assert_array_equal(first[key], second[key])


def test_one_method_that_fails_leaves_the_others(cache, tmp_path, capsys, monkeypatch):
    (tmp_path / "own.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ("--method", "msp", "own:Broken", "own:NotFinite")
    assert evaluate(cache, tmp_path / "out", *asked) == 1
    printed = capsys.readouterr().out
    assert "own:Broken: no result: broken: got this, wanted that" in printed
    assert "own:NotFinite: no result: method own:NotFinite: got 325 of 325 scores" in printed
    assert {method for method, _ in rows_of(tmp_path / "out")} == {"msp"}
    failures = json.loads((tmp_path / "out" / "manifest.json").read_text())["failures"]
    assert set(failures) == {"own:Broken", "own:NotFinite"}
    assert evaluate(cache, tmp_path / "other", "--method", "own:NotFinite") == 2


FAILING = """
from dataclasses import dataclass
import jax.numpy as jnp
from jaxood import Detector, UsageError

@dataclass(frozen=True)
class Broken(Detector):
    reads = ("logits",)
    needs_train = True

    def fit(self, train, labels, head):
        raise UsageError("broken", "this", "that")

    def score(self, state, outputs, head):
        return outputs.logits[:, 0]

@dataclass(frozen=True)
class NotFinite(Detector):
    reads = ("logits",)

    def score(self, state, outputs, head):
        return outputs.logits[:, 0] * jnp.float32(jnp.nan)
"""


def test_what_labels_decide_is_said_before_the_pass(cache, folders, tmp_path, capsys):
    """SHE needs images of each of the six classes; there are two class folders."""
    train = tmp_path / "train"
    for name in ("a", "b"):
        shutil.copytree(folders / "known", train / name)
    data = ("--train-dir", train, "--id-dir", folders / "known", "--ood-dir", folders / "foreign")
    output = tmp_path / "out"
    assert evaluate(cache, output, "--model", "digits_cnn", "--method", "she", *data) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no training image of 4 of 6 classes" in line
    assert not output.exists()


@pytest.mark.parametrize("name", ["train", "in distribution", "id", "mean"])
def test_a_set_may_have_any_name(cache, folders, tmp_path, name):
    data = ("--train-dir", folders / "known", "--id-dir", folders / "known")
    data += ("--ood-dir", f"{name}={folders / 'foreign'}")
    assert evaluate(cache, tmp_path, "--model", "digits_cnn", "--method", "knn[k=2]", *data) == 0
    assert rows_of(tmp_path)["knn[k=2]", name]["n_ood"] == "9"
    scores = np.load(tmp_path / "scores.npz")
    assert sum(key.startswith("scores/") for key in scores.files) == 2


def test_a_list_may_name_a_broken_file_twice(cache, folders, tmp_path):
    names = ["text.jpg", *(f"foreign {i} ä.png" for i in range(1, 9)), "text.jpg"]
    (folders / "foreign" / "list.txt").write_text("\n".join(names))
    data = ("--id-dir", folders / "known", "--ood-dir", f"far={folders / 'foreign' / 'list.txt'}")
    asked = ("--model", "digits_cnn", "--batch-size", 8, "--method", "msp")
    assert evaluate(cache, tmp_path, *asked, *data) == 0
    assert rows_of(tmp_path)["msp", "far"]["n_ood"] == "8"


def test_a_resumed_run_says_the_same_of_skipped_images(cache, folders, tmp_path):
    data = ("--id-dir", folders / "known", "--ood-dir", f"far={folders / 'foreign'}")
    manifests = []
    for _ in range(2):
        assert evaluate(cache, tmp_path, "--model", "digits_cnn", "--method", "msp", *data) == 0
        manifests.append(json.loads((tmp_path / "manifest.json").read_text()))
    assert manifests[0] == manifests[1]
    assert len(manifests[0]["data"]["far"]["skipped"]) == 3


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_wrong_seed_is_said_before_the_pass(cache, tmp_path, capsys, seed):
    assert evaluate(cache, tmp_path / "out", "--seed", seed) == 2
    assert "--seed: got" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_suite_of_ones_own_by_import_path(cache, tmp_path, monkeypatch):
    (tmp_path / "mysuite.py").write_text(
        "import jaxood\n"
        "def build():\n"
        "    digits = jaxood.suite('digits')\n"
        "    far = {'far': digits.ood['noise']}\n"
        "    return jaxood.Suite('mine', digits.train, digits.id_test, far)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    output = tmp_path / "out"
    asked = ("--suite", "mysuite:build", "--model", "digits_cnn", "--method", "msp")
    assert evaluate(cache, output, *asked) == 0
    assert {ood for _, ood in rows_of(output)} == {"far"}


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
    assert set(manifest["data"]["far"]["skipped"]) == {"cut.png", "text.jpg", "zero.gif"}
    assert rows_of(tmp_path)["sfp", "far"]["n_ood"] == "9"
    assert "known 0 ä.png" in np.load(tmp_path / "scores.npz")["ids/in distribution"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "enrgy"], "Did you mean energy"),
        (["--method", "energy+sfp"], "sfp after the score energy"),
        (["--suite", "digit"], "Did you mean digits?"),
        (["--fpr-convention", "odd"], "one of nnguide, openood, plain, sfp"),
        (
            ["--batch-size", "0"],
            "--batch-size: got '0', wanted a whole number of at least 1, or auto",
        ),
        (["--figures", "gif"], "--figures: got 'gif', wanted one of png, svg, pdf. See"),
        (
            ["--metod", "sfp"],
            "arguments: got --metod sfp, wanted what --help lists. Did you mean --method",
        ),
        (["--method"], "--method: got nothing, wanted at least one value"),
        (["--quiet=1"], "--quiet: got '1', wanted nothing, it is a switch"),
        (
            ["--batch-size", "\u0663"],
            "--batch-size: got '\u0663', wanted a whole number of at least 1, or auto",
        ),
        (["--seed", "\u0663"], "--seed: got '\u0663', wanted a whole number. See"),
        (
            ["--output", "/proc/nothing"],
            "--output: got '/proc/nothing', wanted what can be written: No such",
        ),
        (
            ["--id-dir", "LIST", "--ood-dir", "FOREIGN", "--model", "digits_cnn"],
            "--id-dir: got 77 as label of image 1, wanted a class, 0 to 5",
        ),
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
            "--train-dir: got none, wanted training images",
        ),
        (["--set", "knn.k=many", "--method", "knn"], "wanted a whole number"),
        (["--nonsense"], "arguments: got --nonsense, wanted what --help lists. See"),
    ],
)
def test_wrong_input_is_one_line(cache, folders, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {
        "KNOWN": folders / "known",
        "FOREIGN": folders / "foreign",
        "EMPTY": tmp_path / "empty",
        "LIST": tmp_path / "list.txt",
    }
    places["LIST"].write_text("0.png 5\n1.png 77\n")
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
        assert f"got '{output}', wanted what can be written: Not a directory" in line
    assert (tmp_path / "file").read_text() == "mine"
