"""Measures of the map itself, of noise and of forgetting, each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from redness import SIDE, Redness, picture, redness

import jaxood
from jaxood.attribution.registry import attributions
from jaxood.context import Attribution
from jaxood.errors import UsageError
from jaxood.models.loading import abstract_model, fill, parameters
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.measure import Laboratory
from jaxood.perturbation.measures import measure
from jaxood.perturbation.randomisation import stages_of, with_shuffled
from jaxood.perturbation.subject import Subject
from jaxood.preprocessing import Preprocessing
from jaxood.runner.runner import Runner


def value_of(text, given, region=None):
    given = np.asarray(given, np.float32)
    image = np.zeros((*given.shape, 3), np.uint8)
    subject = Subject("a", image, 0, {"m": given}, region)
    (found,) = measure(text).findings(Laboratory(Runner(redness())), [subject])
    return found.values.get("")


def test_sparseness_and_complexity_by_hand():
    assert value_of("sparseness", [[0, 0], [0, 3]]) == pytest.approx(0.75)  # (p - 1) / p
    assert value_of("sparseness", [[2, 2], [2, 2]]) == value_of("sparseness", np.zeros((2, 2))) == 0
    assert value_of("complexity", [[0, 0], [0, -3]]) == pytest.approx(0)
    for flat in (np.full((2, 2), 5), np.zeros((2, 2))):
        assert value_of("complexity", flat) == pytest.approx(np.log(4))
    given = np.random.default_rng(0).normal(size=(6, 5))
    shares = np.abs(given).ravel() / np.abs(given).sum()
    assert value_of("complexity", given) == pytest.approx(
        -np.sum(shares * np.log(shares)), rel=1e-5
    )
    differences = np.abs(shares[:, None] - shares[None])  # Gini's index as a mean difference
    gini = differences.mean() / (2 * shares.mean())
    assert value_of("sparseness", given) == pytest.approx(gini, rel=1e-5)


def test_localisation_by_hand():
    region = np.zeros((4, 4), bool)
    region[:2, :2] = True
    given = np.arange(16.0).reshape(4, 4)
    assert value_of("pointing-game[tolerance=0]", given, region) == 0
    assert value_of("pointing-game[tolerance=0]", -given, region) == 1
    corner = np.hypot(2, 2)  # pixels from the largest value to the object
    assert value_of(f"pointing-game[tolerance={corner + 0.01}]", given, region) == 1
    assert value_of(f"pointing-game[tolerance={corner - 0.01}]", given, region) == 0
    assert value_of("pointing-game[tolerance=0]", np.ones((4, 4)), region) == 1  # one of them
    assert value_of("energy-pointing", given, region) == pytest.approx((0 + 1 + 4 + 5) / 120)
    assert value_of("energy-pointing", given - 4, region) == pytest.approx(1 / 66)
    assert value_of("energy-pointing", -given, region) == 0
    # At least half of the range: 8 to 15, none of them of the object; 10 and less of the negative.
    assert value_of("attribution-iou", given, region) == 0
    assert value_of("attribution-iou", -given, region) == pytest.approx(4 / 8)
    assert value_of("attribution-iou[threshold=1]", -given, region) == pytest.approx(1 / 4)
    for name in ("pointing-game", "energy-pointing", "attribution-iou"):
        assert value_of(name, given) is None  # nobody has said where the object is


class Bright(Attribution):
    """The red channel as it is seen."""

    name = "bright"

    def __call__(self, context):
        return context.images[..., 0]


class Constant(Attribution):
    """The same for all images."""

    name = "constant"

    def __call__(self, context):
        return jnp.ones(context.images.shape[:3]) * jnp.arange(1.0, SIDE + 1)[None, :, None]


def subjects(names, count=3):
    unused = np.zeros((SIDE, SIDE), np.float32)
    return [Subject(str(i), picture(i), 0, dict.fromkeys(names, unused)) for i in range(count)]


def again(text, model, methods, count=3, seed=0, batch_size=8):
    laboratory = Laboratory(Runner(model), methods, batch_size, seed)
    return list(measure(text).findings(laboratory, subjects(methods, count)))


def test_sensitivity_is_of_the_noise():
    methods = {"bright": Bright(), "constant": Constant()}
    found = again("sensitivity[radius=0.1,draws=40]", redness(), methods)
    assert [(one.id, one.method) for one in found] == [
        (str(i), name) for i in range(3) for name in methods
    ]
    for one in found:
        if one.method == "constant":
            assert one.values == {"max": 0.0, "avg": 0.0}
            continue
        red = (picture(int(one.id))[..., 0] / 255 - 0.5) / 0.25
        # The map moves by the noise itself, whose square has a third of radius^2 as mean.
        expected = np.sqrt(SIDE * SIDE * 0.1**2 / 3) / np.linalg.norm(red)
        assert one.values["avg"] == pytest.approx(expected, rel=0.02)
        assert one.values["avg"] < one.values["max"] < 1.2 * expected


def test_sensitivity_depends_on_seed_and_image_alone():
    methods = {"bright": Bright()}

    def values(**how):
        return [
            one.values["max"] for one in again("sensitivity[draws=3]", redness(), methods, **how)
        ]

    whole = values()
    np.testing.assert_allclose(values(batch_size=32), whole, rtol=1e-5)
    np.testing.assert_allclose(values(count=1), whole[:1], rtol=1e-5)
    assert values(seed=1) != whole
    unused = np.zeros((SIDE, SIDE), np.float32)
    twins = [Subject(name, picture(), 0, {"bright": unused}) for name in ("a", "x/a", "b")]
    laboratory = Laboratory(Runner(redness()), methods)
    a, same, b = measure("sensitivity[draws=3]").findings(laboratory, twins)
    assert a.values == same.values != b.values  # by the file's name
    (other,) = again("sensitivity[draws=3,draw=1]", redness(), methods, 1)
    assert other.values["max"] != whole[0]


def staged():
    """The digits network with random weights."""
    module = abstract_model("digits_cnn", 6)
    shapes = {path: leaf.shape for path, leaf in parameters(module).items()}
    rng = np.random.default_rng(0)

    def draw(path):
        return jnp.asarray(rng.normal(0, 0.3, shapes[path]), jnp.float32)

    preprocessing = Preprocessing(SIDE, SIDE)
    return LoadedModel(fill(module, draw), preprocessing, "digits_cnn", "none", "none")


def test_parameters_are_shuffled_from_the_head_down():
    model = staged()
    stages = stages_of(model)
    assert stages[0] == "classifier" and stages[1:] == list(model.module.stage_names)[::-1]
    before, after = (
        parameters(one.module) for one in (model, with_shuffled(model, stages[:2], (0, 0)))
    )
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed and {path.split("/")[0] for path in changed} == {"classifier", "stages"}
    assert {path.split("/")[1] for path in changed if path.startswith("stages")} == {stages[1]}
    for path, array in before.items():
        np.testing.assert_array_equal(np.sort(array, axis=None), np.sort(after[path], axis=None))
    again = parameters(with_shuffled(model, stages[:2], (0, 0)).module)
    other = parameters(with_shuffled(model, stages[:2], (0, 1)).module)
    assert all(np.array_equal(after[path], again[path]) for path in after)
    assert any(not np.array_equal(after[path], other[path]) for path in after)


def test_maps_that_ignore_the_parameters_stay():
    from scipy.stats import spearmanr

    methods = {"bright": Bright(), **attributions(["grad-cam"])}
    model = staged()
    found = again("parameter-randomisation[depths=2]", model, methods, 2)
    by_method = {one.method: one for one in found if one.id == "1"}
    assert by_method["bright"].values[""] == pytest.approx(1)
    ours = by_method["grad-cam"]
    assert ours.values[""] < 0.9 and ours.values[""] == pytest.approx(np.mean(ours.curves[""]))

    def maps(model):
        step, key = Runner(model).step([methods["grad-cam"]]), jax.random.key(0)
        image = jnp.asarray(picture(1)[None])
        return step(model.module, image, jnp.zeros(1, jnp.int32), key).extras["grad-cam"]

    stages = stages_of(model)
    for share, correlation in zip((0.5, 1.0), ours.curves[""], strict=True):
        random = with_shuffled(model, stages[: round(share * len(stages))], (0, 0))
        wanted = spearmanr(np.ravel(maps(model)), np.ravel(maps(random))).statistic
        assert correlation == pytest.approx(wanted, abs=1e-3)


def test_a_model_without_stages_is_shuffled_as_a_whole():
    methods = {"bright": Bright()}
    (found,) = again("parameter-randomisation[depths=1]", redness(), methods, 1)
    assert found.values == {"": pytest.approx(1)}
    assert not np.array_equal(
        with_shuffled(redness(), [""], (0, 3)).module.kernel[...], Redness().kernel[...]
    )


def test_they_know_nothing_of_maps_from_elsewhere():
    images, maps = [picture(0), picture(1)], {"m": np.zeros((2, 4, 4))}
    settings = {"measures": ["deletion[steps=2]", "sensitivity[draws=2]"], "random_maps": 1}
    found = jaxood.faithfulness(redness(), images, "banzhaf", maps=maps, **settings)
    assert set(found.values("deletion[steps=2]")) == {"banzhaf", "m", "random"}
    assert set(found.values("sensitivity[draws=2] max")) == {"banzhaf"}
    assert found.table[-1].beats_random is None
    with pytest.raises(UsageError, match=r"methods: got none, and measure sensitivity\[draws=2\]"):
        jaxood.faithfulness(redness(), images, maps=maps, **settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensitivity[radius=0]", "above 0"),
        ("sensitivity[draws=0]", "1 to 1000"),
        ("parameter-randomisation[depths=0]", "1 to 1000"),
        ("pointing-game[tolerance=-1]", "at least 0"),
        ("attribution-iou[threshold=0]", "above 0 and at most 1"),
        ("infidelity[squares=0]", "1 to 1000"),
        ("infidelity[side=0]", "at least 1"),
    ],
)
def test_wrong_parameters(text, message):
    with pytest.raises(UsageError, match=message):
        measure(text)
