"""Maps of single pixels against loops over torch's autograd in float64."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import KEY, compute, compute_all, context_of

from jaxood.attribution import pixel_gradients
from jaxood.attribution.guided import GuidedBackprop
from jaxood.attribution.integrated_gradients import IntegratedGradients
from jaxood.attribution.occlusion import Occlusion
from jaxood.attribution.registry import attribution
from jaxood.attribution.rewrite import with_plain_kernels
from jaxood.detectors.sfp import SpatialPurification
from jaxood.errors import UsageError
from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, relu

torch = pytest.importorskip("torch")
TARGET = np.array([1, 4, 3, 0])
LAYERS = {"a": (3, 8, 1), "b": (8, 12, 2)}  # inputs, outputs, stride


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(0.5 * rng.normal(size=shape), jnp.float32)

    stages = {}
    for name, (inputs, outputs, stride) in LAYERS.items():
        stages[name] = Conv(inputs, outputs, 3, stride, activation=relu)
        stages[name].kernel[...] = draw(3, 3, inputs, outputs)
        stages[name].bias[...] = draw(outputs)
    classifier = LinearClassifier(12, 5)
    classifier.kernel[...], classifier.bias[...] = 4 * draw(12, 5), draw(5)
    return Backbone(stages, classifier)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(4, 12, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def score(model):
    """The target's logit of one image in float64, channels last."""

    def of(array):
        return torch.from_numpy(np.array(array)).double()

    def score(image, target):
        x = image.permute(2, 0, 1)[None]
        for name, (_, _, stride) in LAYERS.items():
            stage = model.stages[name]
            kernel = of(stage.kernel[...]).permute(3, 2, 0, 1)
            x = torch.nn.functional.conv2d(x, kernel, of(stage.bias[...]), stride, 1).relu()
        return (x.mean((2, 3)) @ of(model.head.kernel) + of(model.head.bias))[0, int(target)]

    return score


@pytest.fixture(scope="module")
def gradient(score):
    def gradient(image, target):
        x = torch.from_numpy(np.asarray(image, np.float64)).requires_grad_()
        return torch.autograd.grad(score(x, target), x)[0].numpy()

    return gradient


def integrated(gradient, image, target, steps, baseline):
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = 0
    for point, weight in zip(points, weights, strict=True):
        at = baseline + (point + 1) / 2 * (image - baseline)
        total = total + weight / 2 * gradient(at, target)
    return total * (image - baseline)


def smoothed(values, image, samples, noise):
    spread = noise * (image.max() - image.min())
    keys = jax.random.split(KEY, samples)
    return sum(values(image + spread * jax.random.normal(k, image.shape)) for k in keys) / samples


REFERENCES = {
    "saliency": lambda g, x, t: np.abs(g(x, t)).max(-1),
    "input-x-gradient": lambda g, x, t: (x * g(x, t)).sum(-1),
    "integrated-gradients[steps=7]": lambda g, x, t: integrated(g, x, t, 7, 0.0).sum(-1),
    "integrated-gradients[steps=3,baseline=-0.5]": lambda g, x, t: integrated(g, x, t, 3, -0.5).sum(
        -1
    ),
    "smoothgrad[samples=3]": lambda g, x, t: np.abs(
        smoothed(lambda noisy: g(noisy, t), x, 3, 0.15)
    ).max(-1),
    "smoothgrad[of=input-x-gradient,samples=2,noise=0.3]": lambda g, x, t: smoothed(
        lambda noisy: np.asarray(noisy) * g(noisy, t), x, 2, 0.3
    ).sum(-1),
    "smoothgrad[of=integrated-gradients[steps=2],samples=2]": lambda g, x, t: smoothed(
        lambda noisy: integrated(g, np.asarray(noisy), t, 2, 0.0), x, 2, 0.15
    ).sum(-1),
}


def test_equals_loops_in_float64(model, images, gradient):
    maps = compute_all([attribution(name) for name in REFERENCES], model, images, TARGET)
    for (name, reference), ours in zip(REFERENCES.items(), maps, strict=True):
        for image, target, found in zip(images, TARGET, ours, strict=True):
            expected = reference(gradient, image, target)
            difference = np.abs(found - expected).max()
            assert difference <= 1e-4 * np.ptp(expected), name


def test_integrated_gradients_are_complete(model, images, score):
    maps = compute(IntegratedGradients(100, 0.2), model, images, TARGET)
    for image, target, found in zip(images, TARGET, maps, strict=True):
        x = torch.from_numpy(image).double()
        whole = float(score(x, target) - score(torch.full_like(x, 0.2), target))
        assert abs(whole) > 1e-2
        np.testing.assert_allclose(found.sum(), whole, atol=2e-3 * np.abs(found).sum())


def test_a_smooth_guided_map_is_the_map_without_noise(model, images):
    smooth = attribution("smoothgrad[of=guided-backprop,noise=0,samples=2]")
    found, expected = compute_all([smooth, GuidedBackprop()], model, images, TARGET)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("step", [1, 2])
def test_steps_over_the_batch_do_not_change_a_map(step, model, images, monkeypatch):
    expected = compute_all([attribution(name) for name in REFERENCES], model, images, TARGET)
    monkeypatch.setattr(pixel_gradients, "images_a_step", lambda height, width: step)
    jax.clear_caches()
    found = compute_all([attribution(name) for name in REFERENCES], model, images, TARGET)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_kernels_of_a_gradient_are_turned(images):
    """In the program, and without another result; those of our networks turn their own."""
    first, second = (
        jnp.asarray(np.random.default_rng(size).standard_normal((3, 3, size, 4), np.float32))
        for size in (3, 4)
    )

    layout = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=layout)

    def score(x):
        for kernel in (first, second):
            x = jax.nn.relu(convolve(x, kernel, (1, 1), "SAME"))
        return x.sum()

    plain = jax.grad(score)
    turned = with_plain_kernels(plain)
    found, expected = turned(jnp.asarray(images)), plain(jnp.asarray(images))
    np.testing.assert_allclose(found, expected, atol=1e-6 * jnp.abs(expected).max())

    def kernels(function):
        equations = jax.make_jaxpr(function)(images).eqns
        found = [e for e in equations if e.primitive.name == "conv_general_dilated"]
        return [e.params["dimension_numbers"].rhs_spec for e in found]

    assert kernels(turned) == [(3, 2, 0, 1)] * 4
    assert kernels(plain) != kernels(turned)


def occluded(score, image, target, window, stride, baseline):
    """Window by window, each pixel with its sum and its count."""
    h, w, _ = image.shape
    full = score(torch.from_numpy(image).double(), target)
    total, count = np.zeros((h, w)), np.zeros((h, w))
    rows, columns = (
        range(0, -(-(size - window) // stride) * stride + 1, stride) for size in (h, w)
    )
    for y, x in itertools.product(rows, columns):
        without = image.copy()
        without[y : y + window, x : x + window] = baseline
        lost = full - score(torch.from_numpy(without).double(), target)
        total[y : y + window, x : x + window] += float(lost)
        count[y : y + window, x : x + window] += 1
    return total / count


@pytest.mark.parametrize(
    ("parameters", "window", "stride", "baseline"),
    [
        ({"window": 5, "stride": 3, "baseline": -0.5}, 5, 3, -0.5),  # cut off at both edges
        ({"window": 4, "stride": 4, "chunk": 5}, 4, 4, 0),
        ({"window": 12, "chunk": 100}, 12, 6, 0),
    ],
)
def test_occlusion(parameters, window, stride, baseline, model, images, score):
    assert Occlusion().windows(224, 224) == (32, 16)
    found = compute(attribution("occlusion", **parameters), model, images, TARGET)
    for image, target, one in zip(images[:2], TARGET[:2], found[:2], strict=True):
        expected = occluded(score, image, target, window, stride, baseline)
        np.testing.assert_allclose(one, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("by", ["saliency", "occlusion[window=4]", "smoothgrad[samples=2]"])
def test_purification_takes_pixels_as_means_over_its_positions(by, model, images):
    context = context_of(model, jnp.asarray(images), jnp.asarray(TARGET))
    view = SpatialPurification(by)
    kept = view.map(context)
    assert kept.shape == (4, 6, 8)  # not one value a pixel
    top = compute(attribution(by), model, images, np.asarray(context.outputs.logits.argmax(-1)))
    expected = top.reshape(4, 6, 2, 8, 2).mean((2, 4))
    np.testing.assert_allclose(kept, expected, atol=1e-5 * np.abs(expected).max())
    assert view(context).shape == (4, 12)


def test_what_is_refused(model, images):
    for name, match in {
        "integrated-gradients[steps=0]": "integrated-gradients.steps: got 0, wanted 1 to 1000",
        "integrated-gradients[baseline=inf]": "integrated-gradients.baseline: got inf, wanted",
        "smoothgrad[samples=0]": "smoothgrad.samples: got 0, wanted 1 to 1000",
        "smoothgrad[noise=-1]": "smoothgrad.noise: got -1.0, wanted 0 or more",
        "smoothgrad[of=grad-cam]": "smoothgrad.of: got 'grad-cam', wanted one of guided-backprop, ",
        "smoothgrad[of=saliency[steps=3]]": "saliency.steps: got a value, wanted none",
        "occlusion[window=0]": "occlusion.window: got 0, wanted 1 or more",
        "occlusion[chunk=0]": "occlusion.chunk: got 0, wanted 1 or more",
    }.items():
        with pytest.raises(UsageError, match=match.replace("[", r"\[")):
            attribution(name)
    with pytest.raises(UsageError, match="occlusion.window: got 13, wanted at most 12 pixels"):
        compute(attribution("occlusion[window=13]"), model, images, TARGET)
    with pytest.raises(UsageError, match="occlusion.stride: got 5, wanted at most the window's 4"):
        compute(attribution("occlusion[window=4,stride=5]"), model, images, TARGET)
