"""Methods over several layers, from images through the one pass, against torch in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detector_references import (
    Case,
    aggregate,
    coverage,
    energy_of,
    gram_deviations,
    knn,
)

from jaxood.context import layers_of
from jaxood.data.images import Arrays
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.scoring import host_outputs, score_rows
from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.preprocessing import Preprocessing
from jaxood.runner.runner import Runner

METHODS = (
    "gram",
    "gram[orders=2,layers=all]",
    "multi-mahalanobis",
    "multi-mahalanobis[layers=conv2/conv1]",
    "aggregate",
    "aggregate[by=std,layers=conv2/conv1]",
    "aggregate[of=knn[k=5],by=fisher,layers=all]",
    "rankfeat",
    "rankfeat[blocks=1]",
    "nac",
    "nac[alpha=40,bins=21,filled=9,layers=all]",
    "nac[alpha=20,spacing=geometric,layers=conv3]",
)
TRAIN, TEST = 400, 24


@pytest.fixture(scope="module")
def model():
    """Blocks end with conv1, 8 x 8 x 32, and conv3, 4 x 4 x 64."""
    network = digits_cnn(4)
    initialise(network, jax.random.key(0))
    for index, stage in enumerate(network.stages.values()):
        key = jax.random.key(1 + index)
        stage.bias[...] = 0.3 * jax.random.normal(key, stage.bias.shape)
    preprocessing = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    images = pictures(TRAIN, 0)
    pooled = network(preprocessing.normalise(jnp.asarray(images.images))).pooled
    means = jnp.stack([pooled[images.labels == label].mean(axis=0) for label in range(4)])
    network.classifier.kernel[...] = means.T  # the nearest of them
    network.classifier.bias[...] = -0.5 * (means**2).sum(axis=1)
    return LoadedModel(network, preprocessing, "digits_cnn", "digits", "hash")


def pictures(count, seed):
    """Of four colours, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [150, 150, 60]])
    images = colours[labels][:, None, None] + 40 * rng.normal(size=(count, 8, 8, 3))
    return Arrays(np.clip(images, 0, 255).astype(np.uint8), labels, f"pictures {seed}")


@pytest.fixture(scope="module")
def found(model):
    """Scores by method; every method from one pass over each set."""
    methods = [parse_method(name) for name in METHODS]
    extractors = {key: one for method in methods for key, one in method.extractors.items()}
    runner, labels = Runner(model), pictures(TRAIN, 0).labels

    def outputs(images):
        features = runner.extract(images, tuple(extractors.values()), batch_size=16)
        return host_outputs(model.head, features.pooled, features.logits, features.extras)

    train, test = outputs(pictures(TRAIN, 0)), outputs(pictures(TEST, 1))
    scores = {}
    for name, method in zip(METHODS, methods, strict=True):
        state = method.fit_state(train, labels, model.head)
        scores[name] = score_rows(method, state, test, model.head)
    return scores


@pytest.fixture(scope="module")
def network(model):
    """The same stages and head in torch, float64."""
    torch = pytest.importorskip("torch")
    stages = []
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 1)):
        kernel = np.float64(model.module.stages[name].kernel[...])
        conv = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, stride, 1).double()
        conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
        conv.bias.data = torch.tensor(np.float64(model.module.stages[name].bias[...]))
        stages.append(torch.nn.Sequential(conv, torch.nn.ReLU()))
    linear = torch.nn.Linear(64, 4).double()
    linear.weight.data = torch.tensor(np.float64(model.head.kernel).T)
    linear.bias.data = torch.tensor(np.float64(model.head.bias))
    pool = torch.nn.AdaptiveAvgPool2d(1)
    return stages, torch.nn.Sequential(pool, torch.nn.Flatten(), linear)


def tensor(images):
    torch = pytest.importorskip("torch")
    values = (images.images / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    return torch.tensor(values.transpose(0, 3, 1, 2))


def layers_and_logits(network, images):
    stages, head = network
    x, layers = tensor(images), []
    for stage in stages:
        x = stage(x)
        layers.append(x)
    return layers, head(x)


def nearest_gaussian(case):
    means = [case.train_h[case.labels == label].mean(axis=0) for label in range(4)]
    scatter = sum(
        np.outer(row - means[k], row - means[k])
        for row, k in zip(case.train_h, case.labels, strict=True)
    )
    inverse = np.linalg.pinv(scatter / len(case.labels), rcond=1e-6, hermitian=True)
    return np.array([-min((z - mean) @ inverse @ (z - mean) for mean in means) for z in case.h])


def nearest_five(case):
    return knn(case, 5)


def both(network):
    return [layers_and_logits(network, pictures(*which)) for which in ((TRAIN, 0), (TEST, 1))]


@pytest.mark.parametrize(
    ("name", "orders", "chosen"),
    [("gram", 5, (0, 2)), ("gram[orders=2,layers=all]", 2, (0, 1, 2))],
)
def test_gram(found, network, name, orders, chosen):
    (train, train_logits), (test, logits) = both(network)
    tops = [x.argmax(dim=1).numpy() for x in (train_logits, logits)]

    def statistics(layer):
        rows = []
        for values in layer.detach().flatten(2).numpy():  # [c, p]
            powers = [values**q for q in range(1, orders + 1)]
            sums = [(power @ power.T).sum(axis=1) for power in powers]
            rows.append(np.concatenate([s ** (1 / q) for q, s in enumerate(sums, 1)]))
        return np.array(rows)

    total = sum(
        gram_deviations(statistics(train[i]), tops[0], statistics(test[i]), tops[1]) for i in chosen
    )
    np.testing.assert_allclose(found[name], -total, rtol=1e-4, atol=1e-6 * np.abs(total).max())


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("multi-mahalanobis", (0, 2)), ("multi-mahalanobis[layers=conv2/conv1]", (0, 1))],
)
def test_multi_mahalanobis(found, network, name, chosen):
    (train, _), (test, _) = both(network)
    labels, total = pictures(TRAIN, 0).labels, np.zeros(TEST)
    for i in chosen:
        rows, points = (layer[i].detach().mean(dim=(2, 3)).numpy() for layer in (train, test))
        total += nearest_gaussian(Case(train_h=rows, h=points, labels=labels))
    np.testing.assert_allclose(found[name], total, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "chosen", "how"),
    [
        ("aggregate", (0, 2), (nearest_gaussian, "mean")),
        ("aggregate[by=std,layers=conv2/conv1]", (0, 1), (nearest_gaussian, "std")),
        ("aggregate[of=knn[k=5],by=fisher,layers=all]", (0, 1, 2), (nearest_five, "fisher")),
    ],
)
def test_aggregate(found, network, name, chosen, how):
    """Layers of 32 and 64 channels, which have no zeros after theirs here."""
    (train, _), (test, _) = both(network)
    means = [
        [layer[i].detach().mean(dim=(2, 3)).numpy() for layer in (train, test)] for i in chosen
    ]
    case = Case(train=means[0][0], labels=pictures(TRAIN, 0).labels)
    expected = aggregate(case, *how, means)
    np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5 * np.ptp(expected))


def test_what_cannot_be_aggregated(found, model):
    for text, line in (
        ("energy", "aggregate.of: got energy, which reads more, wanted a detector that reads"),
        ("vim", "aggregate.of: got vim, which reads more"),
        ("kn", "aggregate.of: got 'kn', wanted one of"),
        ("knn[memory=host]", r"aggregate.of: got knn\[memory=host\], wanted a bank with memory"),
    ):
        with pytest.raises(UsageError, match=line):
            parse_method(f"aggregate[of={text}]")
    rows = np.random.default_rng(0).random((60, 2, 8)).astype(np.float32)
    rows[:, 1] *= np.linspace(3, 0.1, 8, dtype=np.float32)

    def fitted(name, rows):
        outputs = host_outputs(None, rows[:, 0], None, {"layer-means": rows})
        return parse_method(name).fit_state(outputs, np.arange(len(rows)) % 2, None)

    with pytest.raises(UsageError, match="cop, whose states differ in size from layer to layer"):
        fitted("aggregate[of=cop[variance=0.6]]", rows)
    with pytest.raises(UsageError, match="got 15 training images, wanted at least 20"):
        fitted("aggregate", rows[:15])
    with pytest.raises(UsageError, match="aggregate.by: got std of a single layer"):
        fitted("aggregate[by=std]", rows[:, :1])


def test_rankfeat(found, network):
    stages, head = network
    layers, _ = layers_and_logits(network, pictures(TEST, 1))
    torch = pytest.importorskip("torch")

    def reduced(layer):
        matrix = layer.flatten(2)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return (matrix - s[:, :1, None] * u[:, :, :1] @ v[:, :1]).reshape(layer.shape)

    last = head(reduced(layers[2]))
    earlier = head(stages[2](stages[1](reduced(layers[0]))))
    expected = {"rankfeat": (last + earlier) / 2, "rankfeat[blocks=1]": last}
    for name, logits in expected.items():
        np.testing.assert_allclose(found[name], energy_of(logits.detach().numpy()), rtol=1e-4)
    assert np.abs(found["rankfeat"] - found["rankfeat[blocks=1]"]).max() > 0.1


def states(network, images, chosen):
    torch = pytest.importorskip("torch")
    layers, logits = layers_and_logits(network, images)
    loss = -torch.log_softmax(logits, dim=1).mean(dim=1).sum()
    gradients = torch.autograd.grad(loss, [layers[i] for i in chosen])
    pairs = zip((layers[i] for i in chosen), gradients, strict=True)
    return [(layer * slope).mean(dim=(2, 3)).detach().numpy() for layer, slope in pairs]


@pytest.mark.parametrize(
    ("name", "chosen", "how"),
    [
        ("nac", (0, 2), (100, 50, 50)),
        ("nac[alpha=40,bins=21,filled=9,layers=all]", (0, 1, 2), (40, 21, 9)),
    ],
)
def test_nac(found, network, name, chosen, how):
    train, test = (states(network, pictures(*which), chosen) for which in ((TRAIN, 0), (TEST, 1)))
    expected = sum(coverage(*rows, *how) for rows in zip(train, test, strict=True))
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found[name], expected, rtol=1e-5)


@pytest.mark.long
def test_pytorch_ood_agrees(found, network, monkeypatch):
    torch = pytest.importorskip("torch")
    from references import import_torchvision

    import_torchvision()
    library = pytest.importorskip("pytorch_ood.detector")
    stages, head = network
    blocks = [stages[0], torch.nn.Sequential(*stages[1:])]
    train, test = (tensor(pictures(*which)) for which in ((TRAIN, 0), (TEST, 1)))
    labels = torch.tensor(pictures(TRAIN, 0).labels)
    predicted = layers_and_logits(network, pictures(TRAIN, 0))[1].argmax(dim=1)
    # It draws the tenth that is left out; here the first of each class is.
    monkeypatch.setattr(torch, "randperm", torch.arange)
    gram = library.Gram(head, blocks, 4, list(range(1, 6))).to("cpu").fit([(train, predicted)])
    expected = -gram.predict(test).numpy()
    np.testing.assert_allclose(
        found["gram"], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
    )

    gaussians = library.MultiMahalanobis(blocks).to("cpu")
    means = [layer.mean(dim=(2, 3)).detach() for layer in _two(network, pictures(TRAIN, 0))]
    gaussians.fit_structured([rows.float() for rows in means], labels)
    maps = [layer.detach().float() for layer in _two(network, pictures(TEST, 1))]
    theirs = -2 * TRAIN * gaussians.predict_structured(maps)  # halves of sums, not means
    np.testing.assert_allclose(found["multi-mahalanobis"], theirs, rtol=1e-4)

    whole = torch.nn.Sequential(*stages, head)

    def logspace(start, end, steps, device):
        return torch.tensor(np.geomspace(1e-6, 0.5 - 1e-13, steps))

    # Its border at 0.5 is one of float32, just below, with channels of 0 above it, as here; and two
    # states of -3e-8 and -1e-9, which changes five scores by 3e-4.
    monkeypatch.setattr(torch, "logspace", logspace)
    neurons = library.NACUE(whole, [stages[2]], alpha=20.0).fit([train])
    theirs = -neurons.predict(test)
    name = "nac[alpha=20,spacing=geometric,layers=conv3]"
    np.testing.assert_allclose(found[name], theirs, rtol=1e-4)

    removed = library.RankFeat(torch.nn.Sequential(*stages), head)
    np.testing.assert_allclose(found["rankfeat[blocks=1]"], -removed.predict(test), rtol=1e-4)


def _two(network, images):
    layers, _ = layers_and_logits(network, images)
    return layers[0], layers[2]


def test_one_forward_pass_whatever_the_layers(model):
    """Counted in the traced program: three convolutions, the last two again for each block.

    And all of these for a CPU as well, but for their gradients.
    """

    def convolutions(*names):
        methods = [parse_method(name) for name in names]
        extractors = {key: one for method in methods for key, one in method.extractors.items()}
        step = Runner(model).step(tuple(extractors.values()))
        images = jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)
        target = jax.ShapeDtypeStruct((4,), np.int32)
        traced = jax.make_jaxpr(lambda *rows: step(model.module, *rows, jax.random.key(0)))
        return str(traced(images, target)).count("conv_general_dilated[")

    assert convolutions("gram[layers=all]", "gram", "multi-mahalanobis", "knn") == 6
    assert convolutions("rankfeat") == 10


def test_layers_by_name(model):
    module = model.module
    assert layers_of(module, "all") == ("conv1", "conv2", "conv3")
    assert layers_of(module, "ends") == ("conv1", "conv3")
    assert layers_of(module, "last") == ("conv3",)
    assert layers_of(module, "conv3/conv1/conv3") == ("conv1", "conv3")
    for name in ("gram[layers=conv1/conv4]", "nac[layers=conv4]"):
        wrong = tuple(parse_method(name).extractors.values())
        with pytest.raises(UsageError, match="layers?: got 'conv4', wanted one of conv1, conv2"):
            Runner(model).check(wrong, 8, 8)


def test_few_images_are_said(model, caplog):
    rows = np.random.default_rng(0).random((20, 2, 64)).astype(np.float32)
    rows[:, 0, 12:] = 0
    outputs = host_outputs(None, rows[:, 1], None, {"layer-means": rows})
    parse_method("multi-mahalanobis").fit_state(outputs, np.arange(20) % 2, None)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        "method multi-mahalanobis: a covariance of 64 channels from 20 training images; better more"
    )
