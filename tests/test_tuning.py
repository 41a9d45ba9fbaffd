"""Parameters chosen on validation images: the right ones, and from nothing else."""

import csv
import itertools
import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from untrained import Watched, untrained_digits

import jaxood
from jaxood.cli import main
from jaxood.data.suite import Suite
from jaxood.detectors.grammar import parse_method, parse_tune
from jaxood.detectors.registry import DETECTORS, TRANSFORMS
from jaxood.detectors.spaces import OPENOOD
from jaxood.metrics import resamples

TUNE = {
    "react": {"percentile": [50, 90, 99]},
    "knn": {"k": [1, 5, 40]},
    "gen": {"gamma": [0.05, 0.5, 3.0], "top": [2, 6]},
}
METHODS = ["react+energy", "react+knn", "gen", "knn[k=3]", "msp"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(resamples, "RESAMPLES", 5)


@pytest.fixture(scope="module")
def model():
    return untrained_digits()


READ: list[str] = []


def pictures(name, count, seed, foreign=False):
    """Noise around the colours of six classes; foreign ones are darker, and stripes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 6
    colours = np.random.default_rng(0).uniform(60, 250, (6, 3))
    noise = rng.normal(size=(count, 8, 8, 3))
    images = colours[labels][:, None, None] + 50 * noise
    if foreign:
        images = 0.8 * images + 40 * (np.arange(8) % 2)[:, None, None]
    return Watched(np.clip(images, 0, 255).astype(np.uint8), labels, name, read=READ)


@pytest.fixture(scope="module")
def suite():
    ood = {"far": pictures("far", 20, 5, True)}
    known = pictures("known", 48, 3), pictures("foreign", 40, 4, True)
    return Suite("pictures", pictures("train", 90, 1), pictures("test", 30, 2), ood, *known)


@pytest.fixture(scope="module")
def found(model, suite):
    READ.clear()
    result = jaxood.evaluate(model, suite, METHODS, tune=TUNE)
    return result, list(READ)


def outputs(model, images):
    got = model.module(model.preprocessing.normalise(jnp.asarray(images.images)))
    return np.float64(got.pooled), np.float64(got.logits)


def auroc(known, foreign):
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in foreign]
    return sum(pairs) / len(pairs)


def naive(model, suite):
    """AUROC on validation images by the method asked for and its parameters, in float64."""
    train, _ = outputs(model, suite.train)
    sets = outputs(model, suite.id_validation), outputs(model, suite.ood_validation)
    weight, bias = np.float64(model.head.kernel), np.float64(model.head.bias)

    def nearest(rows, bank, k):
        rows, bank = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (rows, bank))
        return [-np.sort(np.linalg.norm(bank - row, axis=1))[k - 1] for row in rows]

    areas = {}
    for percentile in (50, 90, 99):
        cut = np.percentile(train, percentile)
        clipped = [np.minimum(z, cut) for z, _ in sets]
        scores = [logsumexp(z @ weight + bias, axis=1) for z in clipped]
        areas["react", percentile] = auroc(*scores)
        for k in (1, 5, 40):
            scores = [nearest(z, np.minimum(train, cut), k) for z in clipped]
            areas["react+knn", percentile, k] = auroc(*scores)
    for gamma, top in itertools.product((0.05, 0.5, 3.0), (2, 6)):
        largest = [np.sort(softmax(v, axis=1), axis=1)[:, -top:] for _, v in sets]
        scores = [-(p**gamma * (1 - p) ** gamma).sum(axis=1) for p in largest]
        areas["gen", gamma, top] = auroc(*scores)
    return areas


def test_the_best_on_validation_images_is_chosen(model, suite, found):
    result, _ = found
    areas = naive(model, suite)
    rows = result.tuning.candidates
    assert len(rows) == len(areas) == 3 + 9 + 6
    for row in rows:
        parts = parse_method(row.method).parts
        values = {"react": lambda p: (p.percentile,), "knn": lambda p: (p.k,)}
        values["gen"] = lambda p: (p.gamma, p.top)
        key = (row.asked, *(v for part in parts for v in values[part.name](part)))
        assert row.auroc == pytest.approx(areas.pop(key), abs=2e-3), row  # float32 has ties
        best = max(one.auroc for one in rows if one.asked == row.asked)
        first = next(one for one in rows if one.asked == row.asked and one.auroc == best)
        assert row.chosen == (row == first)
        assert (row.n_id, row.n_ood, row.reason) == (48, 40, "")
    chosen = result.tuning.chosen
    assert [*chosen] == ["react", "react+knn", "gen"]
    names = [one.method for one in result.results]
    assert names[-5:] == [*(name for (name,) in chosen.values()), "knn[k=3]", "msp"]
    assert sum(("k=3" in name) for name in names) == 1  # given is given
    for row in rows:
        default = parse_method(row.asked).name
        assert row.chosen is False or row.method != default, "the test would not see a choice"


def test_no_test_image_has_a_say(model, suite, found):
    """Other test images, even the validation images turned round, change no choice."""
    result, read = found
    assert read == ["train", "known", "foreign", "test", "far"]
    turned = replace(
        suite, id_test=suite.ood_validation, ood={"far": suite.id_validation}, shifted={}
    )
    other = jaxood.evaluate(model, turned, METHODS, tune=TUNE)
    assert other.tuning == result.tuning
    others = replace(suite, id_validation=suite.ood_validation, ood_validation=suite.id_validation)
    changed = jaxood.evaluate(model, others, METHODS, tune=TUNE)
    assert changed.tuning.chosen != result.tuning.chosen


def test_what_is_chosen_scores_as_if_it_had_been_asked_for(model, suite, found):
    result, _ = found
    names = [name for (name,) in result.tuning.chosen.values()]
    alone = jaxood.evaluate(model, suite, names)
    scores = {one.method: one.scores for one in result.results}
    for one in alone.results:
        np.testing.assert_array_equal(one.scores.ood["far"], scores[one.method].ood["far"])


def test_parameters_that_change_the_pass_are_extracted_for_every_value(model, suite):
    """Each of ODIN's nudges of validation images, and of test images the one that is chosen."""
    tune = {"odin": {"temperature": [1, 1000], "epsilon": [0.0014, 0.2]}}
    result = jaxood.evaluate(model, suite, "odin", tune=tune)
    assert len(result.validation.features.extras) == len(result.tuning.candidates) == 4
    ((name,),) = result.tuning.chosen.values()
    assert len(result.id_test.features.extras) == 1
    (alone,) = jaxood.evaluate(model, suite, name).results
    np.testing.assert_array_equal(result.results[0].scores.id, alone.scores.id)
    areas = {}
    for row in result.tuning.candidates:  # as test sets, which no choice is made on
        swapped = replace(suite, id_test=suite.id_validation, ood={"far": suite.ood_validation})
        (one,) = jaxood.evaluate(model, swapped, row.method).results
        areas[row.method] = auroc(one.scores.id, one.scores.ood["far"])
        assert row.auroc == pytest.approx(areas[row.method], abs=1e-9)
    assert areas[name] == max(areas.values())


def test_a_value_that_cannot_be_fitted_is_left_out_with_its_reason(model, suite, caplog):
    tune = {"knn": {"k": [1000, 2000, 7]}}
    result = jaxood.evaluate(model, suite, ["knn", "msp"], tune=tune)
    assert result.tuning.chosen == {"knn": ["knn[k=7]"]}
    reasons = [row.reason for row in result.tuning.candidates]
    assert reasons[0].startswith("knn.k: got 1000, wanted 1 to 90") and reasons[2] == ""
    assert [row.auroc for row in result.tuning.candidates[:2]] == [None, None]
    assert "not tried: knn[k=1000]: knn.k: got 1000" in caplog.text
    tune = {"knn": {"k": [1000, 2000]}}
    result = jaxood.evaluate(model, suite, ["knn", "msp"], tune=tune)
    assert [*result.failures] == ["knn[k=1000]"] and result.results[0].method == "msp"


def test_openoods_spaces():
    """Counts of combinations in its files, the order of its loop, and values that are ours too."""
    counts = {"react": 4, "scale": 7, "ash-b": 7, "vra": 16, "adascale-a": 36, "adascale-l": 36}
    counts |= {"knn": 5, "vim": 2, "gen": 42, "odin": 8, "i-odin": 8, "fdbd": 2, "nci": 4}
    counts |= {"relation": 5, "ash-p": 7, "ash-s": 7}
    assert {name: len(space) for name, space in OPENOOD.items()} == counts
    assert OPENOOD["gen"][:2] == ({"gamma": 0.01, "top": 10}, {"gamma": 0.1, "top": 10})
    assert OPENOOD["adascale-a"][0] == {"low": 60.0, "high": 65.0}
    assert OPENOOD["adascale-a"][-1] == {"low": 95.0, "high": 99.0}
    for name, space in OPENOOD.items():
        for values in space:
            (TRANSFORMS | DETECTORS)[name](**values)


def test_what_makes_no_sense_is_said_before_an_image_is_read(model, suite):
    def refusal(methods, tune, on=suite, **more):
        READ.clear()
        with pytest.raises(jaxood.UsageError) as error:
            jaxood.evaluate(model, on, methods, tune=tune, **more)
        assert READ == []
        return str(error.value)

    bare = replace(suite, id_validation=None, ood_validation=None)
    assert refusal("react", "openood", bare) == (
        "tune: got suite pictures without ID and OOD validation images, wanted one with both. "
        "Name them in a TOML table of your own; or take --sweep, and report every value"
    )
    one = replace(suite, ood_validation=None, missing={"ood_validation": "no val.txt in data"})
    assert refusal("react", "openood", one).startswith(
        "suite: got no val.txt in data, wanted images that parameters are tuned on. `jaxood suites"
    )
    assert refusal("react", "opnood").startswith("tune: got 'opnood', wanted openood, or values")
    assert refusal("msp", "openood").startswith("tune: got openood for msp, wanted one that leaves")
    wanted = "wanted a part of a method asked for: energy, react"
    assert refusal("react", {"knn": {"k": [5]}}) == f"tune: got knn.k, {wanted}"
    given = "tune: got knn.k, which is given, wanted a parameter that a method leaves open"
    assert refusal("knn[k=5]", {"knn": {"k": [5, 6]}}) == given
    assert refusal("knn", {"knn": {"k": [5, 6]}}, settings={"knn": {"k": 3}}) == given
    assert refusal("knn", []).startswith("tune: got nothing, wanted openood, or values")
    assert "Did you mean percentile?" in refusal("react", {"react": {"percentil": [5, 6]}})


def test_a_space_of_ones_own_takes_the_place_of_openoods(model, suite):
    tune = parse_tune(["openood", "knn.k=2,3"])
    assert tune == ["openood", {"knn": {"k": ["2", "3"]}}]
    result = jaxood.evaluate(model, suite, ["knn", "react[percentile=90]", "react"], tune=tune)
    tried = [(row.asked, row.method) for row in result.tuning.candidates]
    assert tried[:2] == [("knn", "knn[k=2]"), ("knn", "knn[k=3]")]
    assert [asked for asked, _ in tried[2:]] == ["react"] * 4
    assert {"react", "energy"} < {one.method for one in result.results}
    fixed = {"knn": {"k": 3}}
    result = jaxood.evaluate(model, suite, ["knn", "react"], settings=fixed, tune="openood")
    assert {row.asked for row in result.tuning.candidates} == {"react"}


SUITE = """
import numpy as np
from jaxood.data.digits import digits_suite
from dataclasses import replace

def held_out():
    suite = digits_suite()
    train, dark = suite.train, suite.ood["patches"]
    return replace(
        suite,
        train=train.subset(np.arange(600)),
        id_validation=train.subset(np.arange(600, 756)),
        ood_validation=dark.subset(np.arange(0, 500, 5)),
        ood={"noise": suite.ood["noise"], "patches": dark.subset(np.arange(1, 500, 5))},
        groups={},
    )
"""


@pytest.mark.long
def test_the_command_and_its_files(cache, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(SUITE)
    monkeypatch.syspath_prepend(tmp_path)
    method = ("--method", "react+knn", "vra", "--suite", "mine:held_out")
    tune = ("--tune", "openood", "--tune", "knn.k=5,50")
    where = ("--cache-dir", str(cache), "--output", str(tmp_path / "out"))
    assert main("evaluate", [*method, *tune, *where]) == 0
    printed = capsys.readouterr().out
    with (tmp_path / "out" / "tuning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 + 16
    chosen = {row["asked"]: row for row in rows if row["chosen"] == "True"}
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert about["tuned"] == {asked: [row["method"]] for asked, row in chosen.items()}
    assert about["arguments"]["tune"] == ["openood", {"knn": {"k": ["5", "50"]}}]
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert {row["method"] for row in chosen.values()} < methods
    for asked, row in chosen.items():
        assert float(row["auroc"]) == max(float(r["auroc"]) for r in rows if r["asked"] == asked)
        area = f"AUROC {100 * float(row['auroc']):.2f} on validation images"
        assert f"tuned {asked}: {row['method']}, {area}" in printed
    assert main("evaluate", ["--method", "react", "--tune", "openood", *where]) == 2
    printed = capsys.readouterr().err
    assert "--tune: got suite digits without ID and OOD validation images" in printed
