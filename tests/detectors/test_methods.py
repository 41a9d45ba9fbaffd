"""The grammar of method names, their parameters, and methods as objects."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detection as toy

from jaxood.detectors.ash import Scale
from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import Detector, check_labels
from jaxood.detectors.grammar import (
    parse_method,
    parse_methods,
    parse_settings,
    parse_sweeps,
    with_parameters,
)
from jaxood.detectors.logit_scores import Energy
from jaxood.detectors.method import Method
from jaxood.detectors.neighbours import Knn
from jaxood.detectors.react import ReAct
from jaxood.detectors.sfp import SpatialPurification
from jaxood.errors import UsageError


@dataclass(frozen=True)
class Largest(Detector):
    """A detector of the user's own."""

    reads: ClassVar[tuple] = ("logits",)

    factor: float = 1.0

    def score(self, state, outputs, head):
        return self.factor * outputs.logits.max(axis=1)


@dataclass(frozen=True)
class NoScore(Detector):
    pass


def test_a_view_or_transform_alone_means_energy():
    for name in ("sfp", "react", "sfp+react"):
        assert parse_method(name) == parse_method(f"{name}+energy")
        assert parse_method(f"{name}+energy").name == name
    assert parse_method("sfp+react") == Method(Energy(), (ReAct(),), SpatialPurification())


def test_steps_are_applied_in_order():
    """sfp+react+scale+knn by hand; the fit of each step sees what the steps before it make."""
    head, train, labels, _, test = toy.data()
    method = parse_method("sfp+react+scale+knn")
    state = method.fit_state(train, labels, head)
    threshold = np.percentile(train.extras["sfp"], 90)
    knn = Knn()

    def before_knn(outputs):
        cut = np.minimum(outputs.extras["sfp"], np.float32(threshold))
        return Scale().apply((), outputs._replace(penultimate=cut), head)

    expected = knn.score(knn.fit(before_knn(train), labels, head), before_knn(test), head)
    np.testing.assert_allclose(method.score(state, test, head), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "norm"])
def test_views_replace_every_depth(kind):
    head, _, _, _, test = toy.data(kind)
    method = parse_method("sfp+maxlogit")
    purified = np.asarray(head(test.extras["sfp"])).max(axis=1)
    state = method.fit_state(None, None, head)
    np.testing.assert_allclose(method.score(state, test, head), purified, rtol=1e-5)
    assert not np.allclose(purified, test.logits.max(axis=1), atol=1e-3)
    norm = parse_method("sfp+gradnorm")
    penultimate = np.asarray(head.penultimate(jnp.asarray(test.extras["sfp"])))
    p = np.asarray(jax.nn.softmax(head(test.extras["sfp"]), axis=1))
    expected = np.abs(penultimate).sum(axis=1) * np.abs(p - 1 / toy.CLASSES).sum(axis=1)
    state = norm.fit_state(None, None, head)
    np.testing.assert_allclose(norm.score(state, test, head), expected, rtol=1e-4)


def test_steps_are_fitted_on_the_images_they_ask_for():
    """react on training images; temperature on validation images that react has clipped."""
    head, train, labels, _, _ = toy.data()
    half = len(labels) // 2
    known, held_out = (
        jax.tree.map(lambda a, r=r: a[r], train) for r in (slice(half), slice(half, None))
    )
    validation = held_out, labels[half:]
    method = parse_method("react+temp_scaling")
    react, temperature = method.fit_state(known, None, head, validation)
    assert react == parse_method("react").fit_state(known, None, head)[0]
    clipped = np.minimum(held_out.penultimate, np.float32(react.threshold))
    outputs = held_out._replace(penultimate=clipped, logits=np.asarray(head.classify(clipped)))
    expected = parse_method("temp_scaling").fit_state(outputs, labels[half:], head)[0]
    np.testing.assert_allclose(temperature.temperature, expected.temperature, rtol=1e-4)
    assert method.fit_state(train, labels, head)[1] != temperature

    method = parse_method("adascale-a")
    state, _ = method.fit_state(None, None, head, (held_out, None))
    assert len(state.sorted_responses) == len(labels) - half
    assert [step.name for step in method.fitted_on("validation", True)] == ["adascale-a"]
    assert method.fitted_on("train", True) == () and len(method.fitted_on("train", False)) == 1
    with pytest.raises(UsageError, match="method temp_scaling: got validation images without lab"):
        parse_method("temp_scaling").fit_state(train, labels, head, (held_out, None))
    with pytest.raises(UsageError, match="labels: got 6 as label of image 1, wanted a class, 0 to"):
        wrong = np.array([0, 6])
        parse_method("temp_scaling").check(wrong, toy.CLASSES, "validation", True)
    parse_method("temp_scaling").check(None, toy.CLASSES, "train", True)

    class Elsewhere(Largest):
        fits_on: ClassVar[str] = "val"

    with pytest.raises(UsageError, match="fits_on 'val', wanted train or validation"):
        parse_method(Elsewhere())


def test_the_view_that_a_detector_brings_goes_before_transforms():
    head, train, labels, _, test = toy.data()
    method = parse_method("react+odin")
    assert list(method.extractors) == ["odin"]
    state = method.fit_state(train, labels, head)
    threshold = np.percentile(train.extras["odin"], 90)
    logits = np.asarray(head(np.minimum(test.extras["odin"], np.float32(threshold))), np.float64)
    p = np.exp(logits / 1000) / np.exp(logits / 1000).sum(axis=1, keepdims=True)
    expected = np.log(toy.CLASSES * p.max(axis=1))
    np.testing.assert_allclose(method.score(state, test, head), expected, rtol=1e-4)


def test_needs():
    assert not parse_method("sfp+energy").needs_train
    assert parse_method("react+energy").needs_train
    assert not parse_method("react+knn").needs_labels
    assert parse_method("react+mahalanobis").needs_labels
    assert list(parse_method("sfp+react+energy").extractors) == ["sfp"]
    assert list(parse_method("adascale-a+gram").extractors) == ["adascale", "gram"]
    assert not parse_method("knn").needs_head and parse_method("sfp+knn").needs_head
    assert parse_method("react+knn").needs_head and parse_method("vim").needs_head


def test_reads():
    assert parse_method("knn").reads == ("penultimate",)
    assert parse_method("knn[features=pooled]").reads == ("pooled",)
    assert parse_method("react+nnguide").reads == ("pooled", "penultimate", "logits")
    assert parse_method("sfp+react+nnguide").reads == () == parse_method("odin").reads


def test_methods_are_hashable():
    """So that a compiled function can take one as a static argument."""
    assert hash(parse_method("sfp+react+knn")) == hash(parse_method("sfp+react+knn"))
    assert parse_method("knn[k=5]") != parse_method("knn[k=6]")


@pytest.mark.parametrize(
    ("text", "name", "plain"),
    [
        ("knn", "knn", None),
        ("knn[k=10]", "knn", None),
        ("react+knn[k=50]", "react+knn[k=50]", "knn[k=50]"),
        ("sfp + energy", "sfp", "energy"),
        ("energy[temperature=1e+1]", "energy[temperature=10.0]", None),
        ("ash-s+energy[temperature=1e+1]", "ash-s+energy[temperature=10.0]", None),
        ("scale+energy[temperature=1e+16]", "scale+energy[temperature=1e+16]", None),
        ("react+odin", "react+odin", "odin"),
        (
            "react+mahalanobis++[rcond=1e-3]",
            "react+mahalanobis++[rcond=0.001]",
            "mahalanobis++[rcond=0.001]",
        ),
        ("sfp + rmds++", "sfp+rmds++", "rmds++"),
        ("sfp[by=shapley]+msp", "sfp[by=shapley]+msp", "msp"),
    ],
)
def test_names_come_from_the_parts(text, name, plain):
    method = parse_method(text)
    assert method.name == name
    assert parse_method(method.name) == method
    if method.transforms or method.view:
        plain = plain or parse_method(text.split("+", 1)[1]).name
        assert method.plain.name == plain and method.plain == Method(method.detector)
    else:
        assert method.plain is None


def test_the_plain_counterpart_has_the_same_parameters():
    """`react+knn` with knn.k=50 stands beside knn at k = 50."""
    method = parse_method("react+knn", {"knn": {"k": "50"}})
    assert method.name == "react+knn[k=50]" and method.plain.detector.k == 50


@pytest.mark.parametrize("name", toy.NAMES)
def test_every_name_reads_back_from_its_spelling(name):
    method = parse_method(name)
    assert method.name == name
    assert parse_method(method.spelled_out) == method


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("reakt", "method: got 'reakt', wanted a score: aggregate, cadref, caref, cop, corp, "),
        ("reakt", "; a transform: adascale-a, "),
        ("reakt", "; a view: rankfeat, sfp. Did you mean react"),
        ("reakt+knn", "Did you mean react"),
        ("react+sfp", "method: got the view sfp after react, wanted sfp+react"),
        ("msp+energy", "got two scores, msp and energy, wanted one score. Ask for two methods"),
        ("msp+react", "got react after the score msp, wanted the score last"),
        ("msp+sfp", "got sfp after the score msp, wanted the score last"),
        ("sfp+rankfeat", "got two views, sfp and rankfeat, wanted one view, as the first part"),
        ("sfp+odin", "got the view sfp before odin, wanted odin alone, which has a view already"),
        ("dice+react", "got react after dice, wanted dice as the last transform. It changes"),
        ("adascale-l+dice", "got dice after adascale-l, wanted adascale-l as the last transform"),
        ("react+react+knn", "method: got react twice in a row, wanted it once"),
        ("", "method: got '', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("react++knn", "method: got '', wanted NAME"),
        ("knn[k]", "method: got 'knn[k]', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("knn[k=5", "method: got 'knn[k=5', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("knn[k=five]", "knn.k: got 'five', wanted a whole number"),
        ("knn[k=\u0663]", "knn.k: got '\u0663', wanted a whole number"),
        ("knn[k=2.5]", "knn.k: got '2.5', wanted a whole number"),
        ("knn[m=5]", "parameter of knn: got 'm', wanted one of dtype, features, k, memory"),
        ("knn[features=logits]", "knn.features: got 'logits', wanted one of penultimate, pooled"),
        ("msp[k=5]", "msp.k: got a value, wanted none for msp"),
        ("gmm[covariance=tight]", "gmm.covariance: got 'tight', wanted one of full, tied"),
        ("react[percentile=nan]", "react.percentile: got 'nan', wanted a number"),
        ("no_such_module:Mine", "method: got no_such_module:Mine (No module named"),
        ("json:loads", "wanted a class that is a jaxood.Detector, jaxood.Transform or jaxood.View"),
        (f"{__name__}:NoScore", f"method: got {__name__}:NoScore without score, wanted a class"),
    ],
)
def test_refused(text, line):
    with pytest.raises(UsageError) as error:
        parse_method(text)
    assert line in str(error.value)


def test_what_is_no_method_is_refused():
    with pytest.raises(UsageError, match="method: got 5, wanted a name, a Method, or a Detector"):
        parse_method(5)


def test_the_same_transform_with_other_parameters_may_follow():
    method = parse_method("react[percentile=80]+react+knn")
    assert [one.percentile for one in method.transforms] == [80.0, 90.0]
    assert len(parse_method("ash-s+react+ash-s").transforms) == 3


def test_parts_of_the_users_own_by_object_and_import_path():
    path = f"{__name__}:Largest"
    for method in (parse_method(f"react+{path}[factor=2]"), Method(Largest(2.0), (ReAct(),))):
        assert method.name == f"react+{path}[factor=2.0]"
        assert parse_method(method.name) == method
    assert parse_method(Largest) == parse_method(Largest()) == parse_method(path)
    assert parse_method(ReAct()) == parse_method("react")
    assert parse_method(SpatialPurification()) == parse_method("sfp")
    settings = parse_settings([f"{path}.factor=3"])
    assert parse_methods([path], settings)[0].detector == Largest(3.0)
    head, _, _, _, test = toy.data()
    scores = parse_method(path).score(((),), test, head)
    np.testing.assert_array_equal(scores, test.logits.max(axis=1))


def test_detector_sets_parameters_of_the_last_part():
    assert with_parameters("knn", k=50) == parse_method("knn[k=50]")
    assert with_parameters("react+vim", dim=5) == parse_method("react+vim[dim=5]")
    assert with_parameters("react", percentile="80") == parse_method("react[percentile=80]")
    assert with_parameters("react[percentile=80]+knn[k=7]", memory="host").detector == Knn(
        7, "float32", "host"
    )
    assert with_parameters(Largest, factor=2).detector == Largest(2.0)
    with pytest.raises(UsageError, match="parameter of knn: got 'kk'"):
        with_parameters("knn", kk=5)


def test_settings():
    settings = parse_settings(["knn.k=50", "knn.k=60", "react.percentile=1e1"])
    assert settings == {"knn": {"k": "60"}, "react": {"percentile": "1e1"}}
    method = parse_method("react+knn", settings)
    assert method.name == "react[percentile=10.0]+knn[k=60]"
    assert (method.detector.k, method.transforms[0].percentile) == (60, 10.0)
    assert parse_method("knn[k=7]", settings).detector.k == 7  # the nearer word holds
    assert parse_method("sfp", {"energy": {"temperature": "2"}}).detector.temperature == 2.0


@pytest.mark.parametrize("text", ["knn", "knn.k", "knn=5", ".k=5", "knn.=5", "knn.k="])
def test_malformed_settings(text):
    with pytest.raises(UsageError, match=r"set: got .*, wanted NAME.PARAMETER=VALUE"):
        parse_settings([text])


def test_sweep():
    sweeps = parse_sweeps(["knn.k=5,10", "react.percentile=80,90"])
    methods = parse_methods(["knn", "react+knn", "msp", "knn", Largest()], {}, sweeps)
    assert [method.name for method in methods] == [
        "knn[k=5]",
        "knn",
        "react[percentile=80.0]+knn[k=5]",
        "react[percentile=80.0]+knn",
        "react+knn[k=5]",
        "react+knn",
        "msp",
        f"{__name__}:Largest",
    ]
    assert [method.detector.k for method in methods[:4]] == [5, 10, 5, 10]


def test_methods_that_are_the_same_come_once():
    methods = parse_methods(["sfp", "sfp+energy", "knn[k=10]", "knn", Knn()])
    assert [method.name for method in methods] == ["sfp", "knn"]


def test_sweep_of_the_implied_energy():
    methods = parse_methods(["sfp"], {}, parse_sweeps(["energy.temperature=1,2"]))
    assert [method.name for method in methods] == ["sfp", "sfp+energy[temperature=2.0]"]
    swept = parse_methods(["react"], {}, parse_sweeps(["react.percentile=80"]))
    assert [method.name for method in swept] == ["react[percentile=80.0]"]


def test_a_sweep_over_an_extractor_keeps_an_extra_for_each():
    methods = parse_methods(["sfp", "sfp+knn"], {}, parse_sweeps(["sfp.keep_fraction=0.5,0.7"]))
    names = [list(method.extractors) for method in methods]
    assert names == 2 * [["sfp[keep_fraction=0.5]"], ["sfp[keep_fraction=0.7]"]]
    assert methods[0].extractors["sfp[keep_fraction=0.5]"].keep_fraction == 0.5


@pytest.mark.parametrize(
    ("sets", "sweeps", "line"),
    [
        (["vim.dim=5"], [], "set: got vim.dim, wanted a part of a method asked for: energy, knn"),
        ([], ["vim.dim=5,6"], "sweep: got vim.dim, wanted a part of a method asked for: energy"),
        (["vmi.dim=5"], [], "set: got 'vmi', wanted a score: "),
        (["knn.kk=5"], [], "parameter of knn: got 'kk', wanted one of dtype, features, k, memory"),
        ([], ["knn.kk=5"], "parameter of knn: got 'kk', wanted one of dtype, features, k, memory"),
        ([], ["knn.k=5,5"], "sweep: got 'knn.k=5,5', wanted values that differ"),
        ([], ["knn.k=,"], "sweep: got 'knn.k=,', wanted values that differ"),
    ],
)
def test_settings_without_effect(sets, sweeps, line):
    with pytest.raises(UsageError) as error:
        parse_methods(["knn", "react"], parse_settings(sets), parse_sweeps(sweeps))
    assert str(error.value).startswith(line)


def test_missing_training_data():
    head, train, _, _, _ = toy.data()
    with pytest.raises(UsageError, match="method knn: got no training images, wanted some to fit"):
        parse_method("knn").fit_state(None, None, head)
    with pytest.raises(UsageError, match="method rmds: got training images without labels"):
        parse_method("rmds").fit_state(train, None, head)


@pytest.mark.parametrize("name", ["openmax", "temp_scaling", "mahalanobis", "she", "react+gmm"])
def test_labels_that_are_no_classes_are_refused_before_anything_is_computed(name):
    head, train, labels, _, _ = toy.data()
    method, wrong = parse_method(name), labels.copy()
    for value in (toy.CLASSES, -1):
        wrong[7] = value
        line = f"labels: got {value} as label of image 7, wanted a class, 0 to 5"
        with pytest.raises(UsageError, match=line):
            method.fit_state(train, wrong, head)
        with pytest.raises(UsageError, match=line):
            method.check(wrong, toy.CLASSES)
    with pytest.raises(UsageError, match="labels: got 479 of them for 480 training images"):
        method.fit_state(train, labels[1:], head)


def test_check_labels():
    np.testing.assert_array_equal(check_labels([0, 2], None), [0, 2])
    with pytest.raises(
        UsageError, match="labels: got -1 as label of image 1, wanted a class, 0 or"
    ):
        check_labels([0, -1], None)
    with pytest.raises(
        UsageError, match=r"labels: got float64 values of shape \(2,\), wanted a wh"
    ):
        check_labels([0.0, 1.0], 2)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20])
def test_blocks(count):
    """Blocks of 8 rows, the last one padded; what is computed for the padding is cut off."""
    sizes = []

    def function(rows):
        sizes.append(len(rows["a"]))
        return {"b": rows["a"] + 1, "c": rows["a"].sum(axis=1)}

    rows = {"a": np.arange(count * 3, dtype=np.float32).reshape(count, 3)}
    found = map_blocks(function, rows, block=8)
    np.testing.assert_array_equal(found["b"], rows["a"] + 1)
    np.testing.assert_array_equal(found["c"], rows["a"].sum(axis=1))
    assert set(sizes) == {8}


def test_fit_over_several_blocks_equals_one(monkeypatch):
    """The outputs before a fitted step are made block by block."""
    from jaxood.detectors import method as module

    head, train, labels, _, test = toy.data()
    method = parse_method("sfp+react+knn")
    whole = method.score(method.fit_state(train, labels, head), test, head)
    monkeypatch.setattr(module, "map_blocks", lambda f, rows: map_blocks(f, rows, 100))
    jax.clear_caches()
    blocked = method.score(method.fit_state(train, labels, head), test, head)
    np.testing.assert_allclose(blocked, whole, rtol=1e-6)


def test_transforms_change_what_a_norm_head_classifies():
    """On a head with a norm they acted on what the norm takes away again."""
    head, train, labels, _, test = toy.data("norm")
    scores = {}
    for name in ("energy", "scale", "ash-s", "ash-p", "adascale-a"):
        method = parse_method(name)
        scores[name] = np.asarray(method.score(method.fit_state(train, labels, head), test, head))
    for first, second in itertools.combinations(scores, 2):
        assert np.abs(scores[first] - scores[second]).max() > 0.1, (first, second)
