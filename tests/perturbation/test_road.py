"""Removal conventions and ROAD curves, by hand and against grad-cam's metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from redness import SIDE, picture, redness
from references import imagenet_photographs, import_torchvision, mobilenet_checkpoint

import jaxood
from jaxood.errors import UsageError
from jaxood.parallel import data_mesh
from jaxood.perturbation.removal import removal_order
from jaxood.perturbation.road import Explained, RoadSettings, road_curves
from jaxood.perturbation.statistics import area, mean_interval
from jaxood.runner.runner import Runner

FRACTIONS = (0.0, 0.25, 0.5, 0.9)


def item(name="a", method="true", seed=0):
    image = picture(seed)
    red = image[..., 0].astype(np.float32) - image[..., 2].astype(np.float32)
    shuffled = np.random.default_rng(seed).permutation(red.ravel()).reshape(red.shape)
    return Explained(name, image, 0, method, red if method == "true" else shuffled)


def curves(items, batch_size=4, seed=0, model=None, **settings):
    settings = RoadSettings(**({"fractions": FRACTIONS} | settings))
    runner = Runner(model or redness(), data_mesh(jax.devices()[:1]))
    return list(road_curves(runner, items, settings, batch_size=batch_size, seed=seed))


def removed(maps, least, fractions, convention, seed=0):
    maps = jnp.asarray(maps, jnp.float32)
    least = jnp.full(len(maps), least)
    keys = jax.random.split(jax.random.key(seed), len(maps))
    ranks, counts = removal_order(maps, least, fractions, convention, keys)
    return np.asarray(ranks[:, None] < counts[:, :, None, None])


def test_exact_convention_by_hand():
    maps = [[[0.1, 0.9], [0.5, 0.3]]]
    morf = removed(maps, False, (0.0, 0.25, 0.5, 0.75), "exact")[0]
    assert morf.reshape(4, 4).astype(int).tolist() == [
        [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1],
    ]  # fmt: skip
    lerf = removed(maps, True, (0.25, 0.5), "exact")[0]
    assert lerf.reshape(2, 4).astype(int).tolist() == [[1, 0, 0, 0], [1, 0, 0, 1]]


def test_exact_convention_draws_ties_by_key():
    maps = np.zeros((1, 10, 10))
    draws = [removed(maps, False, (0.3,), "exact", seed)[0, 0] for seed in (0, 0, 1)]
    assert [draw.sum() for draw in draws] == [30, 30, 30]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_notebook_convention_by_hand():
    maps = [[[0.0, 0.25], [0.5, 1.0]]]
    # q = 100, 75, 50 are 1, 0.625 and 0.375; kept is what lies strictly below.
    morf = removed(maps, False, (0.0, 0.25, 0.5), "notebook")[0]
    assert morf.reshape(3, 4).astype(int).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1]]
    lerf = removed(maps, True, (0.5,), "notebook")[0]
    assert lerf.reshape(4).astype(int).tolist() == [1, 1, 0, 0]
    tied = removed([[[0.0, 1.0], [1.0, 1.0]]], False, (0.0,), "notebook")[0]
    assert tied.reshape(4).astype(int).tolist() == [0, 1, 1, 1]  # all of them go


@pytest.mark.parametrize("kind", ["distinct", "ties", "nearly equal"])
def test_notebook_convention_is_numpys_percentile(kind):
    rng = np.random.default_rng(1)
    maps = rng.random((3, 31, 17)).astype(np.float32)
    if kind == "ties":
        maps = np.round(8 * maps) / np.float32(8)
    if kind == "nearly equal":
        maps = np.float32(1) + np.round(4 * maps) * np.finfo(np.float32).eps
    fractions = tuple(i / 50 for i in range(48))
    for least in (False, True):
        ours = removed(maps, least, fractions, "notebook")
        for plain, mask in zip(maps, ours, strict=True):
            relevance = 1 - plain if least else plain
            for fraction, at in zip(fractions, mask, strict=True):
                threshold = np.percentile(relevance, round(100 - 100 * fraction))
                np.testing.assert_array_equal(at, relevance >= np.float32(threshold))


def test_faithful_map_beats_its_own_pixels_shuffled():
    true, shuffled = curves([item(), item(method="shuffled")])
    better, worse = true.areas(FRACTIONS), shuffled.areas(FRACTIONS)
    assert better[0] < worse[0] - 0.02 and better[1] > worse[1] + 0.02
    assert better[2] == pytest.approx((better[1] - better[0]) / 2)
    np.testing.assert_allclose(true.confidence[:, 0], shuffled.confidence[:, 0])  # 0 % removed
    assert true.agrees[1].all() and 1 <= true.iterations < 20 and 0 < true.residual < 0.1


def test_first_point_is_the_model_on_the_whole_image():
    model = redness()
    (found,) = curves([item()])
    logits = model.module(model.preprocessing.normalise(jnp.asarray(picture())[None])).logits
    np.testing.assert_allclose(found.confidence[:, 0], jax.nn.softmax(logits)[0, 0], rtol=1e-5)


def test_same_seed_same_curves_in_any_batch():
    items = [item("a"), item("b", "shuffled", 1), item("c", seed=2)]
    first, again, other = (curves(items, seed=seed, noise=0.3) for seed in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.confidence, two.confidence)
        assert np.abs(one.confidence - three.confidence).max(axis=1).min() > 1e-4
    for one, alone in zip(first[::-1], curves(items[::-1], batch_size=2, noise=0.3), strict=True):
        assert one.id == alone.id
        np.testing.assert_allclose(one.confidence, alone.confidence, atol=1e-5)
    fewer = curves(items[:1], noise=0.3, fractions=FRACTIONS[1:])[0]  # nor on the other fractions
    np.testing.assert_allclose(fewer.confidence, first[0].confidence[:, 1:], atol=1e-4)


@pytest.mark.cpu
def test_devices_share_the_rows():
    items = [item("a"), item("b", "shuffled", 1), item("c", seed=2)]
    settings = RoadSettings(FRACTIONS)
    runner = Runner(redness())
    assert runner.mesh.size == len(jax.devices()) == 8
    shared = list(road_curves(runner, items, settings, batch_size=8))
    for several, one in zip(shared, curves(items), strict=True):
        np.testing.assert_allclose(several.confidence, one.confidence, atol=1e-5)


def test_imputing_before_or_after_normalisation_is_the_same_without_noise():
    after, before = (
        curves([item()], noise=0.0, before_normalisation=before)[0] for before in (False, True)
    )
    np.testing.assert_allclose(after.confidence, before.confidence, atol=1e-3)
    noisy = curves([item()], noise=0.1, before_normalisation=True)[0]
    weak = curves([item()], noise=0.1)[0]  # a tenth of a deviation, not of the whole range
    drift = [np.abs(one.confidence - after.confidence)[:, 1:].sum() for one in (noisy, weak)]
    assert drift[0] > 2 * drift[1] > 0


def test_wrong_input():
    with pytest.raises(UsageError, match="rising numbers from 0 to less than 1"):
        RoadSettings((0.5, 1.0))
    with pytest.raises(UsageError, match="rising"):
        RoadSettings((0.5, 0.2))
    with pytest.raises(UsageError, match="Did you mean notebook"):
        RoadSettings(convention="notebok")
    with pytest.raises(UsageError, match="noise"):
        RoadSettings(noise=-1.0)
    flat = item()._replace(map=np.zeros((SIDE, SIDE), np.float32))
    with pytest.raises(UsageError, match="all 256 pixels removed at fraction 0 of morf"):
        curves([flat], convention="notebook")
    assert curves([flat])[0].confidence.shape == (2, 4)
    with pytest.raises(UsageError, match="nan or inf"):
        curves([item()._replace(map=np.full((SIDE, SIDE), np.nan))])
    with pytest.raises(UsageError, match="the image's size"):
        curves([item()._replace(map=np.zeros((7, 7)))])


def test_area_and_interval_by_hand():
    assert area(np.array([1.0, 0.5, 0.0]), (0.0, 0.5, 0.75)) == pytest.approx(0.375 + 0.0625)
    values = np.random.default_rng(0).normal(2, 1, (400, 1))
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    np.testing.assert_allclose((high - low) / 2, 1.96 / 20, rtol=0.1)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of what grad-cam imports
def test_curves_equal_grad_cams(tmp_path):
    """The real MobileNetV2 in torch, grad-cam's imputation and removal, without noise."""
    torch = pytest.importorskip("torch")
    import_torchvision()
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    from torchvision.models import mobilenet_v2

    from jaxood.attribution.heatmap import heatmap
    from jaxood.data.decode import read

    reference = mobilenet_v2()
    reference.load_state_dict(torch.load(mobilenet_checkpoint(), weights_only=True))
    reference.eval()
    model = converted_mobilenet(tmp_path)
    draws = np.random.default_rng(0).random((2, 7, 7), np.float32)
    maps = np.asarray(heatmap(jnp.asarray(draws), (224, 224)))
    images = np.stack(
        [read(str(path), model.preprocessing) for path in imagenet_photographs()[3:5]]
    )
    inputs = np.array(model.preprocessing.normalise(jnp.asarray(images))).transpose(0, 3, 1, 2)
    with torch.no_grad():
        target = reference(torch.tensor(inputs)).argmax(axis=1).numpy()

    percentiles = (90, 40)
    items = [
        Explained(str(i), image, int(label), "given", given)
        for i, (image, label, given) in enumerate(zip(images, target, maps, strict=True))
    ]
    ours = curves(
        items,
        model=model,
        fractions=tuple(1 - q / 100 for q in percentiles),
        convention="notebook",
        noise=0.0,
    )
    wanted = [lambda logits, label=label: torch.softmax(logits, 0)[int(label)] for label in target]
    removals = (road.RemoveMostRelevantFirst, road.RemoveLeastRelevantFirst)
    for order, removal in enumerate(removals):
        for column, q in enumerate(percentiles):
            metric = road.PerturbationConfidenceMetric(removal(q, road.NoisyLinearImputer(0.0)))
            theirs = metric(torch.tensor(inputs), maps, wanted, reference, return_diff=False)
            found = [curve.confidence[order, column] for curve in ours]
            np.testing.assert_allclose(found, theirs, atol=1e-3)


def converted_mobilenet(folder):
    weights = folder / "weights.safetensors"
    jaxood.convert(mobilenet_checkpoint(), weights)
    return jaxood.load_model(weights)
