"""Every method against an independent float64 implementation; some by hand, some by pytorch-ood."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detection as toy
from detector_references import REFERENCES, case_of
from test_detectors import fitted, score, with_extras_of

from jaxood.detectors.grammar import parse_method
from jaxood.detectors.openmax import fit_weibull
from jaxood.detectors.statistics import BLOCK, class_means, covariance, pseudo_whitener
from jaxood.errors import UsageError
from jaxood.heads import CosineHead, LinearHead
from jaxood.outputs import ModelOutputs, model_outputs


def ranks(scores):
    return np.argsort(np.argsort(scores, kind="stable"), kind="stable")


def scores_of(name, kind=None):
    kind = kind or toy.home(name)
    head, _, _, _, test = toy.data(kind)
    method, state = fitted(name, kind)
    return np.asarray(score(method, state, with_extras_of(method, test), head), np.float64)


def test_all_have_a_reference():
    assert {name.partition("[")[0] for name in REFERENCES} == (
        {name.partition("[")[0] for name in toy.NAMES} - {"sfp"}
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name):
    expected = REFERENCES[name](case_of(toy.home(name)))
    actual = scores_of(name)
    assert_same(name, actual, expected)


def assert_same(name, actual, expected):
    largest = np.abs(expected).max()
    if name.startswith(("weiper", "nac", "aggregate[of=knn")):  # steps, and so ties
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * largest)
        return
    # A difference of distances, such as rmds, may be near 0.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * largest)
    np.testing.assert_array_equal(ranks(actual), ranks(expected))


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("kind", ["norm", "cosine"])
def test_reference_on_other_heads(name, kind):
    if name in toy.COSINE:
        with pytest.raises(UsageError, match="got a NormLinearHead, wanted a CosineHead"):
            fitted(name, "norm")
        return
    actual, expected = scores_of(name, kind), REFERENCES[name](case_of(kind))
    assert_same(name, actual, expected)


def by_hand(detector, logits, pooled=None, train=None, labels=None, kernel=None, head=None):
    """Scores of a detector on a few numbers; without a kernel the head is the identity."""
    logits = jnp.asarray(logits, jnp.float32)
    pooled = logits if pooled is None else jnp.asarray(pooled, jnp.float32)
    kernel = jnp.eye(pooled.shape[1], logits.shape[1]) if kernel is None else jnp.asarray(kernel)
    head = head or LinearHead(kernel, jnp.zeros(logits.shape[1]))
    if train is not None:
        train = jnp.asarray(train, jnp.float32)
        train = model_outputs(head, train)
    labels = None if labels is None else np.asarray(labels)
    state = detector.fit(train, labels, head)
    return np.asarray(detector.score(state, ModelOutputs(None, pooled, pooled, logits), head))


def test_by_hand():
    step = {name: cls() for name, cls in toy.DETECTORS.items()}
    even, sure = [[0.0, 0.0]], [[0.0, 0.0], [np.log(3), 0.0]]
    np.testing.assert_allclose(by_hand(step["msp"], sure), [0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(by_hand(step["energy"], even), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(by_hand(step["kl"], even), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(by_hand(step["entropy"], even), -np.log(2), rtol=1e-6)
    np.testing.assert_allclose(by_hand(step["gen"], even), -2 * 0.25**0.1, rtol=1e-6)
    # |z|_1 = 3; p = (3/4, 1/4), so |p - 1/2|_1 = 1/2.
    found = by_hand(step["gradnorm"], [[np.log(3), 0.0]], pooled=[[1.0, -2.0]])
    np.testing.assert_allclose(found, 1.5, rtol=1e-6)


def test_mahalanobis_by_hand():
    """Classes around (0, 0) and (10, 0), covariance diag(1, 4) within: distances in units of it."""
    around = np.array([[1, 2], [1, -2], [-1, 2], [-1, -2]], float)
    train = np.concatenate([around, around + [10, 0]])
    labels = np.repeat([0, 1], 4)
    points = [[0, 0], [2, 0], [0, 4], [10, 2], [5, 0]]
    detector = toy.DETECTORS["mahalanobis"]()
    found = by_hand(detector, points, train=train, labels=labels)
    np.testing.assert_allclose(found, [0, -4, -4, -1, -25], atol=1e-4)
    # The whole: mean (5, 0), covariance diag(26, 4).
    relative = by_hand(toy.DETECTORS["rmds"](), points, train=train, labels=labels)
    np.testing.assert_allclose(relative, found + [25 / 26, 9 / 26, 25 / 26 + 4, 25 / 26 + 1, 0],
                               atol=1e-4)  # fmt: skip


def test_a_class_without_images_is_left_out():
    head, train, labels, _, test = toy.data()
    present = labels != 2
    some = jax.tree.map(lambda rows: rows[present], train)
    for name in ("mahalanobis", "mahalanobis-nnguide", "rmds", "gmm", "openmax"):
        detector = toy.DETECTORS[name]()
        state = detector.fit(some, labels[present], head)
        assert np.isfinite(detector.score(state, test, head)).all(), name
        if hasattr(state, "means") and name != "openmax":
            assert len(state.means) == toy.CLASSES - 1


def test_she_wants_every_class():
    head, train, labels, _, _ = toy.data()
    present = labels != 2
    some = jax.tree.map(lambda rows: rows[present], train)
    line = r"method she: got no training image of 1 of 6 classes \(class \[2\]\), wanted at least"
    with pytest.raises(UsageError, match=line):
        parse_method("react+she").fit_state(some, labels[present], head)
    with pytest.raises(UsageError, match=line):  # labels alone tell, before the pass
        parse_method("react+she").check(labels[present], toy.CLASSES)


def test_full_gmm_states_its_memory():
    rows = np.zeros((1000, 2048), np.float32)
    train = ModelOutputs(None, rows, rows, np.zeros((1000, 1000)))
    line = "gmm.covariance=full: got 1000 classes of 2048 channels, 15.6 GiB, wanted at most 4 GiB"
    with pytest.raises(UsageError, match=line):
        toy.DETECTORS["gmm"](covariance="full").fit(train, np.arange(1000), None)


def test_gmm_tied_is_mahalanobis_for_equal_classes():
    """With one class: -1/2 (distance + log det + c log 2 pi)."""
    rng = np.random.default_rng(0)
    train, points = rng.normal(size=(500, 3)) * [1, 2, 3], rng.normal(size=(9, 3))
    one = np.zeros(500, int)
    distance = -by_hand(toy.DETECTORS["mahalanobis"](), points, train=train, labels=one)
    density = by_hand(toy.DETECTORS["gmm"](ridge=1e-12), points, train=train, labels=one)
    _, log_det = np.linalg.slogdet(np.cov(train.T, bias=True))
    np.testing.assert_allclose(
        density, -0.5 * (distance + log_det + 3 * np.log(2 * np.pi)), rtol=1e-4
    )


def test_statistics_over_several_blocks():
    """More rows than a block, a memory map's read-only kind of array among them."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(2 * BLOCK + 77, 5)) + 1000).astype(np.float32)
    labels = rng.integers(0, 3, len(rows)) * 7  # classes 0, 7 and 14
    rows.flags.writeable = False
    group, counts, means = class_means(rows, labels)
    exact = rows.astype(np.float64)
    expected = [exact[labels == label].mean(axis=0) for label in (0, 7, 14)]
    np.testing.assert_allclose(means, expected, rtol=1e-12)
    np.testing.assert_array_equal(counts, [np.sum(labels == label) for label in (0, 7, 14)])
    found = covariance(rows, means, group, np.full(3, 1 / len(rows)))
    np.testing.assert_allclose(found, np.cov((exact - means[group]).T, bias=True), rtol=1e-9)


def test_pseudo_whitener_leaves_flat_directions_out():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 4))
    rows = np.concatenate([rows, rows[:, :1], np.zeros((100, 1))], axis=1)  # a copy, a dead one
    matrix = np.cov(rows.T)
    whiten, _ = pseudo_whitener(matrix, 1e-9)
    np.testing.assert_allclose(whiten @ whiten.T, np.linalg.pinv(matrix), atol=1e-9)
    assert np.sum(np.abs(whiten).sum(axis=0) > 0) == 4


def test_weibull_fit_is_the_likelihoods_maximum():
    from scipy.stats import weibull_min

    rng = np.random.default_rng(0)
    tails = np.sort(rng.gamma(3.0, 1.0, size=(4, 20)), axis=1)
    tails -= tails[:, :1]
    padded = np.concatenate([tails, np.full((4, 3), np.nan)], axis=1)
    shape, offset = fit_weibull(padded)
    for row, found, off in zip(tails, shape, offset, strict=True):
        expected, _, scale = weibull_min.fit(row + 10_000, floc=0)
        assert found == pytest.approx(expected, rel=1e-3)
        assert off == pytest.approx(expected * np.log(scale / 10_000), rel=1e-3)


def test_gram_statistics_stay_in_range():
    """Activations of 1e4 to the tenth power, squared, are no float32; their roots are."""
    from jaxood.detectors.gram import GramStatistics

    features = np.random.default_rng(0).random((2, 3, 3, 5)).astype(np.float32) * 1e4
    features[..., 1] *= 1e-4
    found = GramStatistics(10).reduce([jnp.asarray(features)]).reshape(2, 10, 5)
    exact = features.reshape(2, 9, 5).astype(np.float64)
    for order in (1, 10):
        powers = exact**order
        sums = np.einsum("npc,npd->nc", powers, powers)
        np.testing.assert_allclose(found[:, order - 1], sums ** (1 / order), rtol=1e-4)


def test_ash_keeps_exactly_k_of_equal_values():
    from jaxood.detectors.ash import kept_channels

    kept = kept_channels(jnp.zeros((2, 10)), 65.0)
    np.testing.assert_array_equal(kept, [[True] * 4 + [False] * 6] * 2)  # round(6.5) is 6


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("energy", {"temperature": 0.0}, "energy.temperature: got 0.0, wanted a positive number"),
        ("gen", {"gamma": 0.0}, "gen.gamma: got 0.0, wanted a positive number"),
        ("gen", {"top": 0}, "gen.top: got 0, wanted a positive number of classes"),
        ("gmm", {"ridge": 0.0}, "gmm.ridge: got 0.0, wanted a positive number"),
        ("gram", {"orders": 0}, "gram.orders: got 0, wanted a positive number"),
        (
            "multi-mahalanobis",
            {"rcond": 1.0},
            "multi-mahalanobis.rcond: got 1.0, wanted at least 0, below 1",
        ),
        ("nac", {"alpha": 0.0}, "nac.alpha: got 0.0, wanted a positive number"),
        ("nac", {"bins": 1}, "nac.bins: got 1, wanted at least 2"),
        ("nac", {"filled": 0}, "nac.filled: got 0, wanted a positive number of images"),
        ("odin", {"temperature": -1.0}, "odin.temperature: got -1.0, wanted a positive number"),
        ("odin", {"epsilon": -1.0}, "odin.epsilon: got -1.0, wanted a number not below 0"),
        ("openmax", {"alpha": 0}, "openmax.alpha: got 0, wanted a positive number of classes"),
        ("openmax", {"tail": 1}, "openmax.tail: got 1, wanted at least 2 distances"),
        ("relation", {"cut": 1.0}, "relation.cut: got 1.0, wanted at least 0, below 1"),
        ("relation", {"pow": 0.0}, "relation.pow: got 0.0, wanted a positive number"),
        ("mahalanobis", {"rcond": 1.0}, "mahalanobis.rcond: got 1.0, wanted at least 0, below 1"),
        ("rmds", {"rcond": -1.0}, "rmds.rcond: got -1.0, wanted at least 0, below 1"),
        ("residual", {"dim": 0}, "residual.dim: got 0, wanted a positive number"),
        ("vim", {"dim": 0}, "vim.dim: got 0, wanted a positive number"),
        ("vim-nnguide", {"dim": 0}, "vim-nnguide.dim: got 0, wanted a positive number"),
        ("react", {"percentile": 0.0}, "react.percentile: got 0.0, wanted a percentile between"),
        ("ash-s", {"percentile": 100.0}, "ash-s.percentile: got 100.0, wanted at least 0, below"),
        ("dice", {"percentile": 100.0}, "dice.percentile: got 100.0, wanted at least 0, below 100"),
        ("vra", {"low": 95.0}, "vra.low and vra.high: got 95.0 and 90.0, wanted percentiles, 0 <="),
        ("adascale-a", {"low": 90.0}, "adascale-a.low and adascale-a.high: got 90.0 and 85.0"),
        (
            "mahalanobis++",
            {"rcond": 1.0},
            "mahalanobis++.rcond: got 1.0, wanted at least 0, below 1",
        ),
        ("rmds++", {"rcond": 1.0}, "rmds++.rcond: got 1.0, wanted at least 0, below 1"),
        ("lts", {"percentile": 100.0}, "lts.percentile: got 100.0, wanted at least 0, below 100"),
        ("weiper", {"bins": 0}, "weiper.bins: got 0, wanted a positive number"),
        ("weiper", {"delta": -1.0}, "weiper.delta: got -1.0, wanted a number not below 0"),
        ("weiper", {"seed": -1}, "weiper.seed: got -1, wanted a whole number, 0 to 2**32 - 1"),
        ("cop", {"variance": 1.0}, "cop.variance: got 1.0, wanted a share between 0 and 1"),
        ("corp", {"gamma": 0.0}, "corp.gamma: got 0.0, wanted a positive number"),
        ("corp", {"features": 0}, "corp.features: got 0, wanted a positive number, or None"),
        ("pnml", {"rcond": 1.0}, "pnml.rcond: got 1.0, wanted at least 0, below 1"),
        ("i-odin", {"temperature": 0.0}, "i-odin.temperature: got 0.0, wanted a positive number"),
        ("mc-dropout", {"rate": 1.0}, "mc-dropout.rate: got 1.0, wanted a number between 0 and 1"),
        ("mc-dropout", {"samples": 0}, "mc-dropout.samples: got 0, wanted a positive number"),
        ("mcm", {"temperature": 0.0}, "mcm.temperature: got 0.0, wanted a positive number"),
        ("neglabel", {"groups": 0}, "neglabel.groups: got 0, wanted a positive number"),
        ("adascale-l", {"o": 0.0}, "adascale-l.o: got 0.0, wanted a fraction of the pixel values"),
    ],
)
def test_parameters_out_of_range(name, fields, line):
    with pytest.raises(UsageError) as error:
        {**toy.DETECTORS, **toy.TRANSFORMS}[name](**fields)
    assert str(error.value).startswith(line)


def test_what_a_cosine_head_may_hold():
    head, _, _, _, test = toy.data("cosine")
    line = "method neglabel: got a CosineHead without negatives, wanted some. Give the head some"
    for none in (None, np.zeros((24, 0), np.float32)):
        with pytest.raises(UsageError, match=line):
            bare = CosineHead(head.columns, head.scale, none)
            parse_method("neglabel").fit_state(None, None, bare)
    # A column twice as long is the same text.
    longer = CosineHead(head.columns * 2, head.scale)
    np.testing.assert_allclose(longer(test.pooled), head(test.pooled), rtol=1e-5)


def test_features_that_hardly_vary():
    rows = np.zeros((1000, 3), np.float32)
    rows[:2] = [[1, 0, 0], [0, 2, 0]]
    train = model_outputs(LinearHead(jnp.eye(3), jnp.zeros(3)), jnp.asarray(rows))
    line = "method optfs: got training features of which 99.8% are 0, wanted features that vary"
    with pytest.raises(UsageError, match=line):
        parse_method("optfs").fit_state(train, None, LinearHead(jnp.eye(3), jnp.zeros(3)))
    for name in ("cop[variance=0.999]", "corp[variance=0.999]"):
        line = (
            "got training features of which 2 directions hold everything, .* smaller co.*.variance"
        )
        with pytest.raises(UsageError, match=line):
            parse_method(name).fit_state(train, None, None)


def test_neglabel_drops_what_is_left_over_of_the_labels():
    """Five labels in two groups of two: 0 and 2, 1 and 3; the fifth is in none."""
    cosines = np.log([[1.0, 3.0, 1.0, 2.0, 3.0, 4.0, 100.0]]) / 10
    head = CosineHead(jnp.eye(7)[:, :2], 1.0, 3 * jnp.eye(7)[:, 2:])
    detector = toy.DETECTORS["neglabel"](groups=2, temperature=0.1)
    outputs = ModelOutputs(None, None, jnp.asarray(cosines), jnp.asarray(cosines[:, :2]))
    found = detector.score((), outputs, head)
    p = np.mean([4 / (4 + 1 + 3), 4 / (4 + 2 + 4)])
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-5)


def test_cadref_holds_a_small_energy():
    """The second channel has no weight, so that d+ is all there is; the energy is below zero."""
    train = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    detector = toy.DETECTORS["cadref"]()
    head = LinearHead(jnp.eye(2), jnp.ones(2))
    state = detector.fit(model_outputs(head, jnp.asarray(train)), None, head)
    np.testing.assert_allclose(state.means[0], [0.5, -0.5])
    outputs = ModelOutputs(None, None, jnp.asarray([[5.0, 0.0]]), jnp.asarray([[-50.0, -60.0]]))
    expected = -(4.5 / (0.01 * float(state.mean_score))) / 5
    np.testing.assert_allclose(detector.score(state, outputs, head), expected, rtol=1e-5)


def test_a_class_that_no_training_image_is_predicted_as(caplog):
    detector, head = toy.DETECTORS["caref"](), LinearHead(jnp.eye(3), jnp.zeros(3))
    train = model_outputs(head, jnp.asarray([[3.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    state = detector.fit(train, None, head)
    np.testing.assert_allclose(state.means, [[3, 1, 0], [0, 1, 0], [1.5, 1, 0]])
    line = "method caref: no training image is predicted as 1 of 3 classes; better more images"
    assert [record.getMessage() for record in caplog.records] == [line]


def library_scores(case):
    """pytorch-ood's scores, higher for in-distribution, for what it defines as we do."""
    torch = pytest.importorskip("torch")
    from references import import_torchvision

    import_torchvision()
    pytest.importorskip("pytorch_ood")
    from pytorch_ood import detector as library

    def tensor(array):
        return torch.tensor(np.asarray(array))

    head = torch.nn.Linear(toy.CHANNELS, toy.CLASSES).double()
    head.weight.data, head.bias.data = tensor(case.weight), tensor(case.bias)
    single = torch.nn.Linear(toy.CHANNELS, toy.CLASSES)
    single.weight.data, single.bias.data = head.weight.data.float(), head.bias.data.float()
    train, test, y = tensor(case.train), tensor(case.test), tensor(case.labels)
    logits, w, b = tensor(case.logits), head.weight.data, head.bias.data
    maps, k = test[:, :, None, None], toy.CLASSES

    def flat_head(x):
        return head(x.flatten(1))

    yield "energy", library.EnergyBased.score(logits)
    yield "entropy", library.Entropy.score(logits)
    yield "gen", library.GEN.score(logits, M=k)
    yield (
        "kl_matching",
        (library.KLMatching(None).fit_logits(tensor(case.train_logits)).predict_logits(logits)),
    )
    unknown = library.OpenMax(None, tailsize=20, alpha=k)
    right = case.train_logits.argmax(axis=1) == case.labels  # the paper's choice, not the library's
    unknown.fit_logits(tensor(case.train_logits[right]), tensor(case.labels[right]))
    yield "openmax", torch.logit(unknown.predict_logits(logits))
    vim = library.ViM(None, toy.CHANNELS // 2, w, b).fit_features(train, y)
    yield "vim", vim.predict_features(test)
    yield (
        "rmds",
        480 * library.RMD(None).fit_features(train.float(), y).predict_features(test.float()),
    )
    gmm = library.GMM(None).fit_features(train, y)
    yield "gmm[covariance=full]", gmm.predict_features(test)
    yield "she", library.SHE(None, head).fit_features(train, y).predict_features(test)
    nci = library.NCI(None, single, alpha=1e-4).fit_features(train)
    yield "nci", nci.predict_features(test)
    fdbd = library.fDBD(None, single).fit_features(train)
    yield "fdbd", fdbd.predict_features(test.float())
    gradnorm = library.GradNorm(head, lambda name: name == "weight").to("cpu")
    yield "gradnorm", gradnorm.predict(test)
    dice = library.DICE(None, w.float(), b.float(), 0.9).fit_features(train, y)
    yield "dice", dice.predict_features(test.float())
    react = library.ReAct(lambda x: x, flat_head).fit_feature_maps(train[:, :, None, None], y)
    yield "react", react.predict_feature_maps(maps)
    for name, percentile in (("ash-p", 0.6), ("ash-b", 0.65), ("ash-s", 0.9)):
        shaped = library.ASH(lambda x: x, flat_head, name, percentile)
        yield name, shaped.predict_feature_maps(maps)
    lts = library.LTS(None, single)
    yield "lts", lts.predict_features(test.float())
    pnml = library.PNML(None, single).fit_features(train, y)
    yield "pnml", pnml.predict_features(test)
    yield "graduncertainty", library.GradUncertainty(head).to("cpu").predict(test)
    yield "scale", library.SCALE(lambda x: x, flat_head, 0.85).predict_feature_maps(maps)


@pytest.mark.long
def test_pytorch_ood_agrees():
    case = case_of("linear")
    for name, outlier_scores in library_scores(case):
        expected, actual = -outlier_scores.detach().double().numpy(), scores_of(name)
        if name in ("fdbd", "gen", "gradnorm"):  # one has a sum over classes, one a mean
            expected = expected * (actual.mean() / expected.mean())
        scale = np.abs(expected).max()  # some of it is float32 there
        np.testing.assert_allclose(actual, expected, atol=2e-4 * scale, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [
        "mahalanobis",
        "mahalanobis++ caref cadref optfs lts pnml cop graduncertainty mc-dropout[samples=2]",
        "weiper[repeats=2]",
    ],
)
def test_memory(names):
    """1,000 classes, 2,048 channels, fit and score: the whole process stays under 4 GB."""
    script = """
import sys, jax, jax.numpy as jnp, numpy as np
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.scoring import host_outputs
from jaxood.heads import LinearHead
rng = np.random.default_rng(0)
rows, kernel = rng.random((12811, 2048), dtype=np.float32), rng.normal(size=(2048, 1000))
head = LinearHead(jnp.asarray(kernel, jnp.float32) * 0.05, jnp.zeros(1000))
train, test = host_outputs(head, rows), host_outputs(head, rows[:1024])
for name in sys.argv[1].split():
    method = parse_method(name)
    state = method.fit_state(train, np.arange(12811) % 1000, head)
    assert np.isfinite(jax.jit(method.score)(state, test, head)).all()
status = open("/proc/self/status").read()  # ru_maxrss begins with that of the parent
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""
    command = [sys.executable, "-c", script, names]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 4e9
