"""`jaxood study` and `jaxood report` as a user calls them."""

import csv

import numpy as np
import pytest

from jaxood.cli import main
from jaxood.demo.digits import digits_weights
from jaxood.flows.evaluation import FILES


def study(cache, output, *arguments):
    asked = [*map(str, arguments), "--cache-dir", str(cache), "--output", str(output)]
    return main("study", asked)


def values(file):
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {
        (row["model"], row["method"], row["set"], row["seed"], row["metric"]): row for row in rows
    }


@pytest.fixture(scope="module")
def studied(cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    weights = digits_weights(cache)
    asked = ("--weights", f"one={weights}", f"two={weights}", "--seed", 0, 1)
    assert study(cache, output, *asked, "--method", "sfp", "knn", "--bank-fraction", 0.1) == 0
    return output


@pytest.mark.long
def test_each_run_is_kept_as_evaluate_makes_it(cache, studied, tmp_path):
    asked = ["--method", "sfp", "knn", "--bank-fraction", "0.1", "--seed", "1"]
    asked += ["--cache-dir", str(cache), "--output", str(tmp_path)]
    assert main("evaluate", asked) == 0
    kept = studied / "one" / "digits" / "seed-1"
    assert {path.name for path in kept.iterdir()} == {*FILES}
    assert (kept / "scores.npz").read_bytes() == (tmp_path / "scores.npz").read_bytes()
    assert (kept / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()


@pytest.mark.long
def test_the_table_is_of_all_runs(studied):
    joined = values(studied / "metrics.csv")
    for model in ("one", "two"):
        for seed in ("0", "1"):
            kept = values(studied / model / "digits" / f"seed-{seed}" / "metrics.csv")
            assert kept.items() <= joined.items() and len(kept) == len(joined) / 4
    knn = [joined["one", "knn", "digits 6-9", seed, "auroc"]["value"] for seed in ("0", "1")]
    assert knn[0] != knn[1]  # other banks
    mean, std = (100 * f(np.array(knn, float)) for f in (np.mean, lambda v: np.std(v, ddof=1)))
    assert f"| {mean:.2f} ± {std:.2f} |" in (studied / "table.md").read_text().replace("**", "")


@pytest.mark.long
def test_report_joins_folders_and_writes_what_is_asked(studied, tmp_path, capsys):
    output = tmp_path / "tables"
    asked = ["--columns", "sets", "--metric", "auroc", "--sort", "method", "--output", str(output)]
    assert main("report", [str(studied / "one"), str(studied / "two"), *asked]) == 0
    printed = capsys.readouterr().out
    assert "far mean" in printed and "FPR95" not in printed
    assert values(output / "metrics.csv") == values(studied / "metrics.csv")
    assert r"\multicolumn{1}{c}{patches}" in (output / "table.tex").read_text()


def test_a_run_without_result_leaves_the_others(cache, tmp_path, capsys, monkeypatch):
    (tmp_path / "two.py").write_text(SUITES)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ("--suite", "two:whole", "two:untrained", "--weights", "digits_cnn")
    assert study(cache, tmp_path / "out", *asked, "--method", "knn") == 1
    printed = capsys.readouterr().out
    assert "digits_cnn.digits on untrained, seed 0: no result: train: got none" in printed
    assert (tmp_path / "out" / "digits_cnn.digits" / "whole" / "seed-0" / "metrics.csv").exists()


SUITES = """
import dataclasses
import jaxood
def whole():
    return dataclasses.replace(jaxood.suite("digits"), name="whole")
def untrained():
    return dataclasses.replace(jaxood.suite("digits"), name="untrained", train=None)
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "digits_cnn", "digits_cnn"), "two that are called digits_cnn.digits"),
        (("--weights", "a=digits_cnn", "digits_cnn"), "NAME=FILE, as the others"),
        (("--weights", "a=nowhere.safetensors"), "nowhere.safetensors"),
        (("--suite", "digits", "digits"), "each once"),
        (("--seed", "-1"), "--seed: got -1"),
        (("--method", "enrgy"), "Did you mean energy"),
        (("--full-spectrum",), "--full-spectrum: got suite digits, which has no covariate-shifted"),
    ],
)
def test_wrong_input_is_one_line(cache, tmp_path, capsys, arguments, message):
    assert study(cache, tmp_path / "out", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
