"""Each measure against its definition, written out in NumPy and float64."""

import numpy as np
import pytest
from jax.random import key
from redness import SIDE, Redness, picture, redness
from scipy import stats

from jaxood.errors import UsageError
from jaxood.perturbation.measure import Laboratory, row_findings
from jaxood.perturbation.measures import MEASURES, measure, measures_of
from jaxood.perturbation.pictures import pictures
from jaxood.perturbation.regions import regions_of
from jaxood.perturbation.rows import Rows, Scene, probabilities
from jaxood.perturbation.subject import Subject, require_map
from jaxood.runner.runner import Runner

KERNEL = np.array([[1.5, -1.5], [0.0, 0.0], [-1.5, 1.5]])


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory(Runner(redness()), batch_size=16)


def subject(seed=0, **more):
    image = picture(seed)
    red = image[..., 0].astype(np.float32) - image[..., 2].astype(np.float32)
    noise = np.random.default_rng(seed + 100).normal(0, 40, red.shape).astype(np.float32)
    return Subject("a", image, 0, {"true": red + noise, "noise": noise, "flat": 0 * red}, **more)


def normalised(image):
    return (image.astype(np.float64) / 255 - 0.5) / 0.25


def probability(x):
    """Of class 0, for a normalised picture: what `Redness` computes."""
    logits = x.mean(axis=(0, 1)) @ KERNEL
    return np.exp(logits[0]) / np.exp(logits).sum()


def falling(given):
    """Pixels by falling relevance; of maps without ties."""
    assert len(np.unique(given)) == given.size
    return np.argsort(-given.ravel())


def replaced(x, other, pixels):
    y = x.reshape(-1, 3).copy()
    y[pixels] = np.broadcast_to(other, x.shape).reshape(-1, 3)[pixels]
    return y.reshape(x.shape)


def steps_of(x, other, order, steps):
    counts = [round(k / steps * len(order)) for k in range(steps + 1)]
    return [probability(replaced(x, other, order[:count])) for count in counts]


def blur(x):
    size = len(x)
    weights = np.array(
        [[np.exp(-0.5 * ((i - j) / 10) ** 2) for j in range(size)] for i in range(size)]
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("yi,xj,ijc->yxc", weights, weights, x)


BASELINES = {
    "zero": lambda x: np.zeros(3),
    "mean": lambda x: x.mean(axis=(0, 1)),
    "black": lambda x: np.full(3, -2.0),
    "blur": blur,
}


def found(laboratory, text, method="true", **more):
    one = measure(text)
    return next(f for f in one.findings(laboratory, [subject(**more)]) if f.method == method)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("name", ["insertion", "deletion", "pixel-flipping"])
def test_curves_of_pixels(laboratory, name, baseline):
    x, order = normalised(picture()), falling(subject().maps["true"])
    other = np.broadcast_to(BASELINES[baseline](x), x.shape)
    pair = (other, x) if name == "insertion" else (x, other)
    curve = np.array(steps_of(*pair, order, 7))
    if name == "pixel-flipping":
        curve = curve[1:]
    ours = found(laboratory, f"{name}[baseline={baseline},steps=7]")
    np.testing.assert_allclose(ours.curves[""], curve, rtol=1e-5)
    by_hand = np.mean((curve[1:] + curve[:-1]) / 2)  # of equal steps
    assert ours.values[""] == pytest.approx(by_hand, rel=1e-5)


def test_pictures():
    """`Redness` cannot tell greys apart."""
    made = pictures(("image", "black", "zero"), redness().preprocessing, picture(), key(0))
    wanted = [normalised(picture()), np.full((SIDE, SIDE, 3), -2.0), np.zeros((SIDE, SIDE, 3))]
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_regions():
    regions = regions_of((5, 7), 3)
    assert regions.count == 6
    assert regions.labels.tolist() == [[0, 0, 0, 1, 1, 1, 2]] * 3 + [[3, 3, 3, 4, 4, 4, 5]] * 2
    given = np.arange(35, dtype=np.float32).reshape(5, 7)
    wanted = [
        given[:3, :3],
        given[:3, 3:6],
        given[:3, 6],
        given[3:, :3],
        given[3:, 3:6],
        given[3:, 6],
    ]
    np.testing.assert_allclose(regions.sums(given), [part.sum() for part in wanted])
    assert regions_of((224, 224), None).side == 16 and regions_of((8, 8), None).side == 1
    with pytest.raises(UsageError, match="patch: got 7, wanted pixels a side, 1 to 6"):
        regions_of((5, 7), 7)


def squares(given, side):
    """Sum of a map over each square of a grid, and its pixels."""
    height, width = given.shape
    numbers = np.arange(given.size).reshape(given.shape)
    boxes = [
        np.s_[y : y + side, x : x + side]
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    return np.array([given[box].sum(dtype=float) for box in boxes]), [
        numbers[box].ravel() for box in boxes
    ]


def test_region_perturbation(laboratory):
    x, given = normalised(picture()), subject().maps["true"]
    sums, boxes = squares(given, 3)
    gone, falls = np.empty(0, int), [0.0]
    for box in np.argsort(-sums)[:10]:
        gone = np.concatenate([gone, boxes[box]])
        falls.append(probability(x) - probability(replaced(x, np.zeros(3), gone)))
    ours = found(laboratory, "region-perturbation[baseline=zero,regions=10,patch=3]")
    assert ours.values[""] == pytest.approx(np.mean(falls), rel=1e-4)


def test_selectivity(laboratory):
    x, given = normalised(picture()), subject().maps["true"]
    sums, boxes = squares(given, 4)
    order, curve = np.argsort(-sums), []
    for count in (0, 4, 8, 12, 16):
        gone = np.concatenate([np.empty(0, int), *(boxes[i] for i in order[:count])])
        curve.append(probability(replaced(x, x.mean(axis=(0, 1)), gone)))
    ours = found(laboratory, "selectivity[baseline=mean,steps=4,patch=4]")
    np.testing.assert_allclose(ours.curves[""], curve, rtol=1e-5)
    assert ours.values[""] == pytest.approx(
        np.mean((np.array(curve)[1:] + curve[:-1]) / 2), rel=1e-5
    )


@pytest.mark.parametrize("patch", [1, 4])
def test_correlations_over_random_subsets(laboratory, patch):
    """The subsets are ours; what is done with them is written out."""
    x, given = normalised(picture()), subject().maps["true"]
    regions = regions_of(given.shape, patch)
    sums, boxes = squares(given, patch)
    scene = Scene(subject(), laboratory.seed)

    def r(share):
        a, b = [], []
        for i in range(12):
            ranks = scene.permutation(regions, 0, i)
            chosen = np.flatnonzero(ranks < round(share * len(boxes)))
            assert len(chosen) == round(share * len(boxes))
            a.append(sum(sums[feature] for feature in chosen))
            gone = np.concatenate([boxes[feature] for feature in chosen])
            b.append(probability(x) - probability(replaced(x, np.zeros(3), gone)))
        return np.corrcoef(a, b)[0, 1]

    ours = found(laboratory, f"faithfulness-correlation[subsets=12,share=0.3,patch={patch}]")
    assert ours.values[""] == pytest.approx(r(0.3), abs=1e-3)
    ours = found(laboratory, f"sensitivity-n[subsets=12,sizes=2,patch={patch}]")
    np.testing.assert_allclose(ours.curves[""], [r(0.4), r(0.8)], atol=1e-3)
    assert ours.values[""] == pytest.approx(np.mean(ours.curves[""]))


def test_subsets_are_random(laboratory):
    scene, regions = Scene(subject()), regions_of((SIDE, SIDE), 2)
    orders = np.array([scene.permutation(regions, 0, i) for i in range(200)])
    assert (np.sort(orders, axis=1) == np.arange(64)).all()
    share = (orders < 16).mean(axis=0)  # each feature is in a quarter of the subsets
    assert share.min() > 0.1 and share.max() < 0.4
    values = [
        found(laboratory, f"sensitivity-n[subsets=20,draw={draw}]").values[""] for draw in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("method", ["true", "noise", "flat"])
def test_the_image_through_its_map(laboratory, method):
    x, given = normalised(picture()), subject().maps[method].astype(np.float64)
    share = (given - given.min()) / (np.ptp(given) or 1)
    whole, seen, hidden = (
        probability(share_seen[..., None] * x)
        for share_seen in (np.ones_like(share), share, 1 - share)
    )
    wanted = {
        "average-drop": max(0, whole - seen) / whole,
        "increase": float(seen > whole),
        "drop-in-deletion": max(0, whole - hidden) / whole,
    }
    for name, value in wanted.items():
        assert found(laboratory, name, method).values[""] == pytest.approx(value, abs=1e-5), name


def test_a_flat_map_correlates_with_nothing(laboratory):
    for name in ("sensitivity-n", "faithfulness-correlation"):
        assert found(laboratory, f"{name}[subsets=5]", "flat").values[""] == 0.0


def test_rows_asked_for_twice_are_computed_once():
    calls = []

    class Counting(Runner):
        def run(self, function, rows, shared=()):
            calls.append(len(rows[0]))
            return super().run(function, rows, shared)

    runner, given = Counting(redness()), subject()
    scene = Scene(given)
    table = scene.ranks("true")
    counts = np.array([0, 10, 20, 256])
    twice = [scene.rows("image", "zero", table, counts)] * 2
    twice += [scene.rows("zero", "image", table, [0, 256])]  # both pictures as they are
    rows = Rows(*map(np.concatenate, zip(*twice, strict=True)))
    shares = []
    values = probabilities(runner, scene, rows, 8, shares.append)
    assert calls == [8] and sum(shares) == pytest.approx(1)  # image, zero, 10 and 20 removed
    np.testing.assert_array_equal(values[:4], values[4:8])
    np.testing.assert_allclose(values[8:], values[[3, 0]])
    x = normalised(given.image)
    wanted = [
        probability(replaced(x, np.zeros(3), falling(given.maps["true"])[:n])) for n in counts
    ]
    np.testing.assert_allclose(values[:4], wanted, rtol=1e-5)


def test_measures_share_one_stream_and_do_not_change_each_other(laboratory):
    chosen = measures_of(
        ["deletion[steps=5]", "insertion[steps=5]", "average-drop", "sensitivity-n[subsets=4]"]
    )
    given = subject()
    together = row_findings(laboratory, given, {one: list(given.maps) for one in chosen.values()})
    for one in together:
        alone = found(laboratory, one.measure, one.method)
        assert one.values[""] == pytest.approx(alone.values[""], abs=1e-6), one
        assert (one.id, one.target) == ("a", 0)


def test_ties_are_drawn_by_seed_and_image():
    def order(name, seed):
        scene = Scene(
            Subject(name, picture(), 0, {"flat": np.zeros((SIDE, SIDE), np.float32)}), seed
        )
        return scene.tables[scene.ranks("flat")]

    first = order("a", 0)
    assert sorted(first.ravel()) == list(range(SIDE * SIDE))
    np.testing.assert_array_equal(first, order("elsewhere/a", 0))
    for other in (order("b", 0), order("a", 1)):
        assert np.mean(other == first) < 0.1


def test_noise_fills_by_seed(laboratory):
    one, two = (found(laboratory, "deletion[baseline=uniform,steps=3]") for _ in range(2))
    assert one == two
    other = Laboratory(laboratory.runner, seed=1)
    three = next(measure("deletion[baseline=uniform,steps=3]").findings(other, [subject()]))
    assert abs(three.values[""] - one.values[""]) > 1e-5


def test_names_and_parameters():
    assert measure("insertion").key == "insertion"
    assert measure("insertion[baseline=mean]").key == "insertion[baseline=mean]"
    assert measure("insertion[baseline=mean]") == MEASURES["insertion"](baseline="mean")
    assert list(measures_of(["deletion", "deletion", "road[steps=3]"])) == [
        "deletion",
        "road[steps=3]",
    ]
    for text, message in {
        "insertoin": "Did you mean insertion",
        "insertion[baseline=blurr]": "insertion.baseline: got 'blurr'.*Did you mean blur",
        "insertion[step=3]": "parameter of insertion",
        "deletion[steps=0]": "deletion.steps: got 0, wanted 1 to 10000",
        "pixel-flipping[steps=1]": "at least 2",
        "sensitivity-n[subsets=1]": "wanted 2 to 1000",
        "sensitivity-n[sizes=0]": "1 to 100",
        "faithfulness-correlation[share=1]": "above 0 and below 1",
        "region-perturbation[regions=0]": "at least 1",
        "road[imputation=liner]": "Did you mean linear",
    }.items():
        with pytest.raises(UsageError, match=message):
            measure(text)
    with pytest.raises(UsageError, match="measures: got 3, wanted a name"):
        measure(3)
    with pytest.raises(UsageError, match="map m of a: got .*wanted"):
        require_map("a", (4, 4), "m", np.zeros((3, 4)))


def test_every_measure_says_what_it_is():
    for name, kind in MEASURES.items():
        one = measure(name)
        assert one.name == name == one.key and one.paper and kind.__doc__
        assert set(one.columns.values()) <= {"high", "low"} and one.columns
        assert one.identity() != measure(kind).identity() or kind is type(one)


def test_better_maps_are_better():
    """The red channel itself against noise, on three pictures."""
    laboratory = Laboratory(Runner(redness()))
    better = {
        "insertion": "high", "deletion": "low", "pixel-flipping": "low", "selectivity": "low",
        "region-perturbation": "high", "sensitivity-n": "high", "faithfulness-correlation": "high",
        "drop-in-deletion": "high",
    }  # fmt: skip
    for name, good in better.items():
        one = measure(name)
        assert one.columns == {"": good}
        for seed in range(3):
            by_method = {f.method: f.values[""] for f in one.findings(laboratory, [subject(seed)])}
            gain = by_method["true"] - by_method["noise"]
            assert gain * (1 if good == "high" else -1) > 0, (name, seed)


def test_the_reference_is_the_model():
    import jax.numpy as jnp

    x = normalised(picture())
    logits = Redness()(jnp.asarray(x[None], jnp.float32)).logits
    assert stats.logistic.cdf(float(logits[0, 0] - logits[0, 1])) == pytest.approx(
        probability(x), rel=1e-5
    )


def test_infidelity(laboratory):
    from scipy.optimize import minimize_scalar

    x, given = normalised(picture()), subject().maps["true"].astype(np.float64)
    one = measure("infidelity[squares=30,side=5]")
    boxes = one.boxes(Scene(subject()))
    assert {(y.stop - y.start, x.stop - x.start) for y, x in boxes} == {(5, 5)}
    assert len({(y.start, x.start) for y, x in boxes}) > 20
    sums = np.array([given[box].sum() for box in boxes])
    falls = []
    for box in boxes:
        without = x.copy()
        without[box] = 0
        falls.append(probability(x) - probability(without))
    lowest = minimize_scalar(lambda b: np.mean((b * sums - falls) ** 2), (-1e-3, 1e-3), tol=1e-12)
    ours = found(laboratory, one)
    assert ours.values[""] == pytest.approx(lowest.fun, rel=1e-3)
    flat = found(laboratory, one, "flat")
    assert flat.values[""] == pytest.approx(np.mean(np.square(falls)), rel=1e-3)


def test_monotonicity(laboratory):
    x, order = normalised(picture()), falling(subject().maps["true"])[::-1]
    curve = steps_of(np.zeros_like(x), x, order, 9)
    ours = found(laboratory, "monotonicity[steps=9]")
    np.testing.assert_allclose(ours.curves[""], curve, rtol=1e-5)
    steady = np.mean(np.diff(curve[1:]) >= 0)
    assert 0 < steady < 1 and ours.values[""] == pytest.approx(steady)


def test_monotonicity_correlation(laboratory):
    x, given = normalised(picture()), subject().maps["true"]
    order = falling(given)[::-1]
    groups = np.split(order, range(16, 256, 16))
    sums = [given.ravel()[group].sum(dtype=float) for group in groups]
    changes = [
        ((probability(x) - probability(replaced(x, np.zeros(3), group))) / probability(x)) ** 2
        for group in groups
    ]
    wanted = stats.spearmanr(sums, changes).statistic
    ours = found(laboratory, "monotonicity-correlation[steps=16]")
    assert ours.values[""] == pytest.approx(wanted, abs=1e-6)
