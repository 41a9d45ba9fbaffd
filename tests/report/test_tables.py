"""Tables to read, and the files of numbers: their words, their columns, their keys."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxood.data.images import Arrays
from jaxood.errors import UsageError
from jaxood.metrics.ood import Interval, Metrics
from jaxood.report.tables import (
    MethodResult,
    Scores,
    SetArrays,
    accuracy,
    score_arrays,
    set_keys,
    table,
    write_arrays,
    write_scores,
)


def metrics(auroc: float, fpr95: float) -> Metrics:
    low_high = Interval(auroc - 0.1, auroc + 0.05), Interval(fpr95 - 0.05, fpr95 + 0.1)
    return Metrics(auroc, low_high[0], fpr95, low_high[1], 0.5, 0.625, 0.75)


@pytest.fixture
def results():
    known, near, far = np.arange(4.0), np.arange(3.0), np.arange(5.0)
    scores = Scores(known, {"near": near, "far": far})
    return [
        MethodResult("energy", None, scores, {"near": metrics(0.8, 0.3), "far": metrics(0.9, 0.2)}),
        MethodResult(
            "react", "energy", scores, {"near": metrics(0.85, 0.2), "far": metrics(0.9, 0.1)}
        ),
    ]


def test_the_table_word_for_word(results):
    assert table(results).splitlines() == [
        "OOD set      AUROC [95 %]        FPR95 [95 %]        AUPR-in     out   DTACC",
        "-" * 76,
        "energy",
        "  near        80.00 [70.0, 85.0]  30.00 [25.0, 40.0]   50.00   62.50   75.00",
        "  far         90.00 [80.0, 95.0]  20.00 [15.0, 30.0]   50.00   62.50   75.00",
        "  mean        85.00               25.00                50.00   62.50   75.00",
        "react",
        "  near        85.00 [75.0, 90.0]  20.00 [15.0, 30.0]   50.00   62.50   75.00",
        "  far         90.00 [80.0, 95.0]  10.00 [5.0, 20.0]    50.00   62.50   75.00",
        "  mean        87.50               15.00                50.00   62.50   75.00",
        "  vs energy   +2.50              -10.00",
    ]


def test_the_best_of_a_set_is_bold(results):
    text = table(results, bold=True)
    marked = [line for line in text.splitlines() if "\x1b" in line]
    assert [
        re.sub("\x1b\\[1m *([\\d.]+).*?\x1b\\[0m", r"<\1>", line).split()[:3] for line in marked
    ] == [
        ["far", "<90.00>", "20.00"],  # as good as the other one
        ["near", "<85.00><20.00>", "50.00"],
        ["far", "<90.00><10.00>", "50.00"],
        ["mean", "<87.50><15.00>", "50.00"],
    ]
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert plain == table(results)
    assert table(results[:1], bold=True) == table(results[:1])  # nothing to be better than


def test_the_order_of_methods(results):
    def order(sort):
        names = [line for line in table(results, sort=sort).splitlines()[2:] if line[0] != " "]
        return names

    assert order(None) == order("method") == ["energy", "react"]
    assert order("auroc") == order("fpr95") == ["react", "energy"]
    with pytest.raises(UsageError, match="sort: got 'aupr', wanted one of auroc, fpr95, method"):
        table(results, sort="aupr")


def test_a_convention_is_named_and_a_lone_method_stands_alone(results):
    text = table(results[1:], "sfp")
    assert "FPR95 (sfp)" in text and "vs energy" not in text


def test_one_set_has_no_mean(results):
    only = {"near": metrics(0.8, 0.3)}
    one = MethodResult("energy", None, results[0].scores, only)
    assert "mean" not in table([one])


def roles(known, *foreign, train=("train",)):
    return {"train": train, "id": [known], "ood": foreign}


def test_sets_are_called_by_their_names():
    assert set_keys(roles("digits", "near", "far")) == {
        ("train", "train"): "train",
        ("id", "digits"): "digits",
        ("ood", "near"): "near",
        ("ood", "far"): "far",
    }
    assert set_keys(roles("digits", "train", train=()))["ood", "train"] == "train"


@pytest.mark.parametrize("name", ["train", "digits"])
def test_sets_of_one_name_are_told_apart_by_role(name):
    keys = set_keys(roles("digits", name, "ood/" + name) | {"shifted": ["far"]})
    assert keys["id", "digits"] == "id/digits" and keys["ood", name] == f"ood/{name}"
    assert keys["shifted", "far"] == "shifted/far"
    assert len(set(keys.values())) == len(keys) == 5


def test_arrays_of_scores(results, tmp_path):
    keys = set_keys(roles("known", "near", "far", train=()))
    sets = [
        SetArrays("known", ["a", "b", "ä", "d"], np.array([1, 0, 1, 2]), np.array([1, 1, 1, 1])),
        SetArrays("near", ["x", "y", "x"], np.array([0, 0, 0]), None),
    ]
    arrays = score_arrays(results, "known", keys, sets)
    for folder in ("one", "two"):
        write_arrays(tmp_path / folder / "scores.npz", arrays)
    one, two = ((tmp_path / folder / "scores.npz").read_bytes() for folder in ("one", "two"))
    assert one == two
    stored = np.load(tmp_path / "one" / "scores.npz")
    assert set(stored) == {
        *(
            f"scores/{method}/{s}"
            for method in ("energy", "react")
            for s in ("known", "near", "far")
        ),
        *("ids/known", "predicted/known", "labels/known", "ids/near", "predicted/near"),
    }
    assert stored["ids/known"].tolist() == ["a", "b", "ä", "d"]
    np.testing.assert_array_equal(stored["scores/react/far"], np.arange(5.0))
    np.testing.assert_array_equal(stored["scores/react/known"], np.arange(4.0))


def test_scores_as_a_row_an_image(results, tmp_path):
    third = np.float32(1) / np.float32(3)
    known = np.array([third, 1, 2, 3], np.float32)
    results = [replace(r, scores=r.scores._replace(id=known)) for r in results]
    results[0].scores.ood["far"][:] = -1
    keys = set_keys(roles("far", "near", "far"))  # the ID set is called as an OOD set
    sets = [
        SetArrays("train/train", ["t"], np.array([0]), None),
        SetArrays("id/far", ["a", 'b,"', "ä", "d"], np.array([1, 0, 1, 2]), np.array([1, 1, 1, 1])),
        SetArrays("ood/near", ["x", "y", "x"], np.array([0, 0, 0]), None),
    ]
    write_scores(tmp_path / "scores.csv", results, keys, sets)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == ["far"] * 4 + ["near"] * 3
    assert [row["role"] for row in rows] == ["id"] * 4 + ["ood"] * 3
    assert [row["id"] for row in rows] == ["a", 'b,"', "ä", "d", "x", "y", "x"]
    assert [row["label"] for row in rows] == ["1"] * 4 + [""] * 3
    assert [row["predicted"] for row in rows] == ["1", "0", "1", "2", "0", "0", "0"]
    assert [float(row["react"]) for row in rows[4:]] == [0, 1, 2]
    assert np.float32(rows[0]["energy"]) == third


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    def no_space(file, **arrays):
        file.write(b"PK")
        raise OSError("no space left")

    write_arrays(tmp_path / "scores.npz", {"a": np.arange(3)})
    before = (tmp_path / "scores.npz").read_bytes()
    monkeypatch.setattr(np, "savez_compressed", no_space)
    with pytest.raises(OSError, match="no space left"):
        write_arrays(tmp_path / "scores.npz", {"a": np.arange(4)})
    assert (tmp_path / "scores.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def labelled(labels, sure):
    return Arrays(np.zeros((4, 2, 2, 3), np.uint8), labels, "four", labels_are_classes=sure)


def test_accuracy_by_hand():
    logits = np.eye(3, dtype=np.float32)[[0, 2, 1]]  # of images 0, 2 and 3
    indices, labels = np.array([0, 2, 3]), np.array([0, 1, 2, 2])
    assert accuracy(labelled(labels, True), indices, logits) == pytest.approx(2 / 3)
    assert accuracy(labelled(labels, False), indices, logits) == pytest.approx(2 / 3)
    assert accuracy(labelled(None, True), indices, logits) is None
    few = np.array([0, 1, 1, 0])  # folders numbered in order: two of them, three classes
    assert accuracy(labelled(few, False), indices, logits) is None
    assert accuracy(labelled(few, True), indices, logits) == pytest.approx(1 / 3)
