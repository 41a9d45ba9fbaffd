"""The grammar of method names, and their parameters."""

from typing import Literal

import jax
import numpy as np
import pytest
import toy_detection as toy

from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.methods import parse_method, parse_methods
from jaxood.detectors.parameters import convert, label, parse_settings, parse_sweeps
from jaxood.errors import UsageError


def test_a_view_or_transform_alone_means_energy():
    for name in ("sfp", "react", "sfp+react"):
        alone, spelled = parse_method(name), parse_method(f"{name}+energy")
        assert alone.name == name
        assert (alone.view, alone.steps) == (spelled.view, spelled.steps)


def test_steps_are_applied_in_order():
    """sfp+react+scale+knn by hand; the fit of each step sees what the steps before it make."""
    head, train, labels, _, test = toy.data()
    method = parse_method("sfp+react+scale+knn")
    state = method.fit(train, labels, head)

    def purified(outputs):
        return outputs._replace(pooled=outputs.extras["sfp"], logits=None)

    threshold = np.percentile(purified(train).pooled, 90)
    scale, knn = toy.TRANSFORMS["scale"](), toy.DETECTORS["knn"]()

    def before_knn(outputs):
        cut = outputs._replace(pooled=np.minimum(purified(outputs).pooled, np.float32(threshold)))
        return scale.apply((), cut, head)

    expected = knn.score(knn.fit(before_knn(train), labels, head), before_knn(test), head)
    np.testing.assert_allclose(method.score(state, test, head), expected, rtol=1e-5)


def test_views_replace_pooled_and_logits():
    head, _, _, _, test = toy.data()
    method = parse_method("sfp+maxlogit")
    purified = np.asarray(head(test.extras["sfp"])).max(axis=1)
    np.testing.assert_allclose(method.score(method.fit(None, None, head), test, head), purified)
    assert not np.allclose(purified, test.logits.max(axis=1), atol=1e-3)


def test_a_detectors_own_view_goes_before_transforms():
    head, train, labels, _, test = toy.data()
    method = parse_method("react+odin")
    assert list(method.extractors) == ["odin"]
    state = method.fit(train, labels, head)
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


def test_methods_are_hashable():
    """So that a compiled function can take one as a static argument."""
    assert hash(parse_method("sfp+react+knn")) == hash(parse_method("sfp+react+knn"))
    assert parse_method("knn[k=5]") != parse_method("knn[k=6]")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("reakt", "method 'reakt': got 'reakt', wanted one of "),
        ("reakt+knn", "Did you mean react or "),
        ("react+sfp", "method 'react+sfp': got the view sfp after react, wanted sfp+react"),
        ("msp+energy", "got two scores, msp and energy, wanted one score. Ask for two methods"),
        ("msp+react", "got react after the score msp, wanted the score last"),
        ("msp+sfp", "got sfp after the score msp, wanted the score last"),
        ("sfp+rankfeat", "got two views, sfp and rankfeat, wanted one view, as the first step"),
        ("sfp+odin", "got the view sfp before odin, wanted odin alone: it has its own view"),
        ("dice+react", "got react after dice, wanted dice as the last transform. It changes"),
        ("adascale-l+dice", "got dice after adascale-l, wanted adascale-l as the last transform"),
        ("", "method: got '', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("react++knn", "method: got '', wanted NAME"),
        ("knn[k]", "method: got 'knn[k]', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("knn[k=5", "method: got 'knn[k=5', wanted NAME or NAME[PARAMETER=VALUE,...]"),
        ("knn[k=five]", "knn.k: got 'five', wanted a whole number"),
        ("knn[k=2.5]", "knn.k: got '2.5', wanted a whole number"),
        ("knn[m=5]", "parameter of knn: got 'm', wanted one of dtype, k, memory"),
        ("msp[k=5]", "msp.k: got a value, wanted none for msp"),
        ("gmm[covariance=tight]", "gmm.covariance: got 'tight', wanted one of full, tied"),
        ("react[percentile=nan]", "react.percentile: got 'nan', wanted a number"),
    ],
)
def test_refused(text, line):
    with pytest.raises(UsageError) as error:
        parse_method(text)
    assert line in str(error.value)


def test_repeated_transforms_are_allowed():
    assert len(parse_method("ash-s+ash-s").transforms) == 2


def test_settings():
    settings = parse_settings(["knn.k=50", "knn.k=60", "react.percentile=1e1"])
    assert settings == {"knn": {"k": "60"}, "react": {"percentile": "1e1"}}
    method = parse_method("react+knn", settings)
    assert method.name == "react+knn"
    assert (method.detector.k, method.transforms[0].percentile) == (60, 10.0)
    assert parse_method("knn[k=7]", settings).detector.k == 7  # the nearer word holds
    assert parse_method("energy[temperature=1e+1]+".rstrip("+")).detector.temperature == 10.0


@pytest.mark.parametrize("text", ["knn", "knn.k", "knn=5", ".k=5", "knn.=5", "knn.k="])
def test_malformed_settings(text):
    with pytest.raises(UsageError, match=r"--set: got .*, wanted NAME.PARAMETER=VALUE"):
        parse_settings([text])


def test_sweep():
    sweeps = parse_sweeps(["knn.k=5,10", "react.percentile=80,90"])
    methods = parse_methods(["knn", "react+knn", "msp", "knn"], {}, sweeps)
    assert [method.name for method in methods] == [
        "knn[k=5]",
        "knn[k=10]",
        "react[percentile=80]+knn[k=5]",
        "react[percentile=80]+knn[k=10]",
        "react[percentile=90]+knn[k=5]",
        "react[percentile=90]+knn[k=10]",
        "msp",
    ]
    assert [method.detector.k for method in methods[:4]] == [5, 10, 5, 10]


def test_sweep_of_the_implied_energy():
    methods = parse_methods(["sfp"], {}, parse_sweeps(["energy.temperature=1,2"]))
    assert [method.name for method in methods] == [
        "sfp+energy[temperature=1]",
        "sfp+energy[temperature=2]",
    ]
    swept = parse_methods(["react"], {}, parse_sweeps(["react.percentile=80"]))
    assert [method.name for method in swept] == ["react[percentile=80]"]


def test_a_sweep_over_an_extractor_keeps_an_extra_for_each():
    methods = parse_methods(["sfp", "sfp+knn"], {}, parse_sweeps(["sfp.keep_fraction=0.5,0.7"]))
    names = [list(method.extractors) for method in methods]
    assert names == 2 * [["sfp[keep_fraction=0.5]"], ["sfp[keep_fraction=0.7]"]]
    assert methods[0].extractors["sfp[keep_fraction=0.5]"].keep_fraction == 0.5


@pytest.mark.parametrize(
    ("sets", "sweeps", "line"),
    [
        (["vim.dim=5"], [], "--set: got vim.dim, wanted a step of a method asked for: energy, knn"),
        ([], ["vim.dim=5,6"], "--sweep: got vim.dim, wanted a step of a method asked for: energy"),
        (["vmi.dim=5"], [], "--set: got 'vmi', wanted one of "),
        (["knn.kk=5"], [], "parameter of knn: got 'kk', wanted one of dtype, k, memory"),
        ([], ["knn.kk=5"], "parameter of knn: got 'kk', wanted one of dtype, k, memory"),
        ([], ["knn.k=5,5"], "--sweep: got 'knn.k=5,5', wanted values that differ"),
        ([], ["knn.k=,"], "--sweep: got 'knn.k=,', wanted values that differ"),
    ],
)
def test_settings_without_effect(sets, sweeps, line):
    with pytest.raises(UsageError) as error:
        parse_methods(["knn", "react"], parse_settings(sets), parse_sweeps(sweeps))
    assert str(error.value).startswith(line)


def test_convert():
    assert convert("a", "none", int | None) is None
    assert convert("a", "7", int | None) == 7
    assert convert("a", 7, float) == 7.0
    assert convert("a", "Yes", bool) is True
    assert convert("a", "x", Literal["x", "y"]) == "x"
    with pytest.raises(UsageError, match="a: got 'maybe', wanted one of"):
        convert("a", "maybe", bool)
    with pytest.raises(UsageError, match="a: got 'inf', wanted a whole number"):
        convert("a", "inf", int)


def test_label_names_what_differs_from_the_defaults():
    assert label("knn", toy.DETECTORS["knn"]()) == "knn"
    assert label("knn", toy.DETECTORS["knn"](k=5)) == "knn[k=5]"


def test_missing_training_data():
    head, train, _, _, _ = toy.data()
    with pytest.raises(UsageError, match="method knn: got no training images, wanted some to fit"):
        parse_method("knn").fit(None, None, head)
    with pytest.raises(UsageError, match="method rmds: got training images without labels"):
        parse_method("rmds").fit(train, None, head)


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
    from jaxood.detectors import methods

    head, train, labels, _, test = toy.data()
    method = parse_method("sfp+react+knn")
    whole = method.score(method.fit(train, labels, head), test, head)
    monkeypatch.setattr(methods, "map_blocks", lambda f, rows: map_blocks(f, rows, 100))
    jax.clear_caches()
    blocked = method.score(method.fit(train, labels, head), test, head)
    np.testing.assert_allclose(blocked, whole, rtol=1e-6)
