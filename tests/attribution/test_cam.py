"""The CAM family against the packages torchcam and grad-cam on the same small torch model."""

import copy

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import KEY, context_of
from contexts import compute as compute_for
from flax import nnx
from references import import_torchvision

from jaxood.attribution.gradients import activation_and_gradient
from jaxood.attribution.registry import ATTRIBUTIONS, attribution
from jaxood.attribution.surrogate import SurrogateTraining, SurrogateValue
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, relu
from jaxood.outputs import model_outputs

torch = pytest.importorskip("torch")
TARGET = np.array([1, 4, 3])
WIDTHS = (3, 8, 12, 16)
LAYERS = ("0", "1", "2")


def grad_cam_package():
    import_torchvision()
    return pytest.importorskip("pytorch_grad_cam")


@pytest.fixture(scope="module")
def torch_model():
    """Three convolutions with batch norm and ReLU, mean, linear; the middle one strides."""
    torch.manual_seed(0)
    blocks = []
    for i, (inputs, outputs) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False)):
        conv = torch.nn.Conv2d(inputs, outputs, 3, stride=1 + (i < 2), padding=1, bias=False)
        norm = torch.nn.BatchNorm2d(outputs)
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(norm.bias, 0.2, 0.3)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
        blocks.append(torch.nn.Sequential(conv, norm, torch.nn.ReLU()))
    pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    head = torch.nn.Linear(WIDTHS[-1], 5)
    torch.nn.init.normal_(head.weight, 20.0, 40.0)  # far above the constants of grad-cam
    return torch.nn.Sequential(*blocks, *pool, head).eval()


@pytest.fixture(scope="module")
def model(torch_model):
    stages = {}
    for name in LAYERS:
        conv, norm, _ = torch_model[int(name)]
        stage = Conv(conv.in_channels, conv.out_channels, 3, conv.stride[0], activation=relu)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = (conv.weight * scale[:, None, None, None]).permute(2, 3, 1, 0)
        stage.kernel[...] = jnp.asarray(kernel.detach().numpy())
        stage.bias[...] = jnp.asarray((norm.bias - norm.running_mean * scale).detach().numpy())
        stages[name] = stage
    classifier = LinearClassifier(WIDTHS[-1], 5)
    classifier.kernel[...] = jnp.asarray(torch_model[-1].weight.detach().numpy().T)
    classifier.bias[...] = jnp.asarray(torch_model[-1].bias.detach().numpy())
    return Backbone(stages, classifier)


@pytest.fixture(scope="module")
def soft_model(model):
    """The same with smaller logits, whose softmax is not saturated."""
    soft = nnx.clone(model)
    soft.classifier.kernel[...] = 0.02 * model.classifier.kernel[...]
    return soft


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 24, 32, 3)).astype(np.float32)


def to_torch(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def compute(method, model, images, target=TARGET, key=KEY):
    return compute_for(attribution(method), model, images, target, key)


def unit(maps):
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


def assert_same(ours, reference):
    assert ours.shape == reference.shape
    for one, other in zip(ours, reference, strict=True):
        assert np.ptp(other) > 0.1
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
        assert np.abs(one - other).max() <= 1e-3 * np.ptp(other)


GRAD_CAM_NAMES = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "layercam": "LayerCAM",
    "elementwise-grad-cam": "GradCAMElementWise",
    "hirescam": "HiResCAM",
    "ablationcam": "AblationCAM",
    "fullgrad": "FullGrad",
}


@pytest.mark.parametrize("layer", ["1", "2"])
@pytest.mark.parametrize("name", GRAD_CAM_NAMES)
def test_equals_grad_cam(name, layer, model, torch_model, images):
    package = grad_cam_package()
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if name == "fullgrad" and layer == "1":
        pytest.skip("takes all layers")
    cam = getattr(package, GRAD_CAM_NAMES[name])(torch_model, [torch_model[int(layer)]])
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    reference = cam(to_torch(images), targets)
    parameters = {} if name == "fullgrad" else {"layer": layer}
    ours = compute(attribution(name, **parameters), model, images)
    size = (images.shape[2], images.shape[1])
    ours = scale_cam_image(scale_cam_image(np.maximum(ours, 0), size))
    assert_same(ours, reference)


TORCHCAM_NAMES = {
    "grad-cam": "GradCAM",
    "xgrad-cam": "XGradCAM",
    "layercam": "LayerCAM",
    "score-cam": "ScoreCAM",
}


@pytest.mark.parametrize("layer", ["1", "2"])
@pytest.mark.parametrize("name", TORCHCAM_NAMES)
def test_equals_torchcam(name, layer, model, torch_model, images):
    methods = pytest.importorskip("torchcam.methods")
    with getattr(methods, TORCHCAM_NAMES[name])(torch_model, layer) as extractor:
        scores = torch_model(to_torch(images))
        reference = extractor(TARGET.tolist(), scores)[0].numpy()
    ours = compute(attribution(name, layer=layer), model, images)
    assert_same(unit(ours), reference)


def gradients(torch_model, images, layer):
    """Activation and gradient by torch in float64, channels last."""
    double = torch_model.double()
    activation = double[: int(layer) + 1](to_torch(images).double()).detach().requires_grad_()
    score = double[int(layer) + 1 :](activation)[range(len(TARGET)), TARGET].sum()
    (gradient,) = torch.autograd.grad(score, activation)
    torch_model.float()
    return (x.detach().numpy().transpose(0, 2, 3, 1) for x in (activation, gradient))


@pytest.mark.parametrize("layer", LAYERS)
def test_activation_and_gradient(layer, model, torch_model, images):
    for ours, reference in zip(
        activation_and_gradient(context_of(model, jnp.asarray(images), jnp.asarray(TARGET)), layer),
        gradients(torch_model, images, layer),
        strict=True,
    ):
        np.testing.assert_allclose(ours, reference, atol=2e-5 * np.abs(reference).max())


def plus_plus(a, g, g2, g3):
    """Grad-CAM++ channel by channel, position by position."""
    n, h, w, c = a.shape
    total = np.zeros((n, h, w))
    for i in range(n):
        for k in range(c):
            weight = sum(
                g2[i, y, x, k]
                / (2 * g2[i, y, x, k] + g3[i, y, x, k] * a[i, :, :, k].sum())
                * g[i, y, x, k]
                for y in range(h)
                for x in range(w)
                if g[i, y, x, k] > 0
            )
            total[i] += weight * a[i, :, :, k]
    return np.maximum(total, 0)


def test_smooth_grad_cam_plus_plus_averages_powers(model, torch_model, images):
    method = attribution("smoothgrad-cam++", layer="1")
    powers = []
    for key in jax.random.split(KEY, method.samples):
        noise = 0.3 * np.asarray(jax.random.normal(key, images.shape[1:]))
        _, g = gradients(torch_model, images + noise, "1")
        powers.append((g, g**2, g**3))
    a, _ = gradients(torch_model, images, "1")
    reference = plus_plus(a, *(sum(power) / method.samples for power in zip(*powers, strict=True)))
    assert_same(compute(method, model, images), reference)


def test_smooth_weights_equal_torchcam_for_one_sample(model, torch_model, images):
    """torchcam's quirks vanish for one copy, and a gradient that is the same everywhere."""
    methods = pytest.importorskip("torchcam.methods")
    method = attribution("smoothgrad-cam++", layer="2", samples=1, noise=0.5)
    (key,) = jax.random.split(KEY, 1)
    noise = np.asarray(0.5 * jax.random.normal(key, images.shape[1:]))
    with methods.SmoothGradCAMpp(torch_model, "2", num_samples=1) as extractor:
        torch_model(to_torch(images))
        clean = extractor.hook_a[0].clone()
        extractor._distrib.sample = lambda size: to_torch(noise[None]).expand(size)
        weights = extractor._get_weights(TARGET.tolist())[0]
    reference = torch.relu((weights[..., None, None] * clean).sum(1)).numpy()
    assert_same(unit(compute(method, model, images)), unit(reference))


@pytest.mark.parametrize("layer", ["0", "2"])  # positions more, and fewer, than channels
def test_eigen_cams_equal_singular_vectors(layer, model, torch_model, images):
    grad_cam_package()
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    images = images[:, :8, :12]  # layer 2: 2 x 3 positions of 16 channels
    a, g = gradients(torch_model, images, layer)
    for name, product in {"eigencam": a, "eigengradcam": a * g}.items():
        reference = get_2d_projection(product.transpose(0, 3, 1, 2))
        ours = compute(attribution(name, layer=layer), model, images)
        for one, other, channels in zip(ours, reference, product.sum(-1), strict=True):
            sign = np.sign(np.corrcoef(one.ravel(), other.ravel())[0, 1])
            np.testing.assert_allclose(one, sign * other, atol=1e-3 * np.ptp(other))
            assert np.corrcoef(one.ravel(), channels.ravel())[0, 1] > 0


@pytest.mark.long
def test_full_grad_is_complete(model, images):
    """Gradients times inputs and biases add up to the logit, in a network of ReLUs."""
    from jaxood.attribution.full_grad import gradient_parts
    from jaxood.attribution.gradients import target_logits

    image, target = jnp.asarray(images[:1]), jnp.asarray(TARGET[:1])
    at_input, at_biases = gradient_parts(
        lambda x: target_logits(model(x).logits, target).sum(), image
    )
    assert [part.shape[-1] for part in at_biases] == list(WIDTHS[1:])
    total = at_input.sum() + sum(part.sum() for part in at_biases) + model.head.bias[target[0]]
    np.testing.assert_allclose(total, model(image).logits[0, target[0]], rtol=1e-4)


def test_guided_backprop_equals_grad_cam(model, torch_model, images):
    package = grad_cam_package()
    from jaxood.attribution.guided import guided_gradient

    guided = package.GuidedBackpropReLUModel(torch_model, "cpu")
    reference = [
        guided(to_torch(images[i : i + 1]), target) for i, target in enumerate(TARGET.tolist())
    ]
    ours = guided_gradient(model, jnp.asarray(images), jnp.asarray(TARGET))
    assert_same(np.asarray(ours), np.stack(reference))
    maps = compute("guided-backprop", model, images)
    np.testing.assert_allclose(maps, np.abs(reference).max(-1), atol=1e-3 * maps.max())


def test_guided_backprop_needs_rectifiers():
    stages = {"0": Conv(3, 4, 3, activation=jax.nn.gelu)}
    model = Backbone(stages, LinearClassifier(4, 5))
    with pytest.raises(UsageError, match="method: got guided-backprop for a model without rect"):
        compute("guided-backprop", model, np.ones((3, 8, 8, 3), np.float32))


def test_full_grad_needs_convolutions(images):
    with pytest.raises(UsageError, match="method: got fullgrad for a model without biased"):
        compute("fullgrad", tokens_model(), images)
    normed = Conv(3, 4, 3, activation=lambda x: x / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1))
    with pytest.raises(UsageError, match="method: got fullgrad for a model with layer norms"):
        compute("fullgrad", Backbone({"0": normed}, LinearClassifier(4, 5)), images)


def test_tokens_equal_grad_cam_with_reshaped_tokens(images):
    """A class token beside the positions: it takes part in the gradient, not in the map."""
    model = tokens_model()
    stages, head = model.stages, model.head
    kernels = [torch.from_numpy(np.array(stages[name].kernel[...])).double() for name in "ab"]
    tokens = torch.from_numpy(images.reshape(3, -1, 3)).double() @ kernels[0]
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1).relu().requires_grad_()
    mixed = (tokens + tokens.mean(1, keepdim=True)) @ kernels[1]
    pooled = mixed[:, 0].relu()
    kernel, bias = (torch.from_numpy(np.array(x)).double() for x in (head.kernel, head.bias))
    (pooled @ kernel + bias)[range(3), TARGET].sum().backward()
    a, g = (x.detach().numpy()[:, 1:].reshape(3, 24, 32, -1) for x in (tokens, tokens.grad))
    reference = np.maximum((a * np.maximum(g, 0)).sum(-1), 0)
    assert_same(unit(compute("layercam", model, images)), unit(reference))
    for name in ("banzhaf", "shapley", "pie"):
        with pytest.raises(UsageError, match=f"method {name}: got .*class token"):
            compute(name, model, images)


def tokens_model():
    """A toy with the shapes of a vision transformer."""

    class Embed(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (3, 6)))

        def __call__(self, images):
            tokens = jnp.matmul(images.reshape(len(images), -1, 3), self.kernel[...])
            return relu(jnp.concatenate([tokens.mean(1, keepdims=True), tokens], 1))

    class Mix(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jax.random.normal(jax.random.key(1), (6, 6)))

        def __call__(self, tokens):
            return jnp.matmul(tokens + tokens.mean(1, keepdims=True), self.kernel[...])

    class Tokens(Backbone):
        def outputs(self, features):
            pooled = relu(features[:, 0])
            return model_outputs(self.head, pooled, self.spatial(features))

        def spatial(self, activation):
            return activation[:, 1:].reshape(len(activation), 24, 32, -1)

    classifier = LinearClassifier(6, 5)
    classifier.kernel[...] = jax.random.normal(jax.random.key(2), (6, 5))
    return Tokens({"a": Embed(), "b": Mix()}, classifier, "a", "class token")


def test_random_cam(model, torch_model, images):
    a, _ = gradients(torch_model, images, "2")
    weights = np.asarray(jax.random.uniform(KEY, (WIDTHS[-1],), minval=-1.0))
    reference = (a * weights).sum(-1)
    np.testing.assert_allclose(compute("randomcam", model, images), reference, atol=1e-4)
    other = compute("randomcam", model, images, key=jax.random.key(4))
    assert np.abs(other - reference).max() > 0.1


def test_sobel_equals_opencv(model, images):
    cv2 = pytest.importorskip("cv2")
    reference = []
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        both = (cv2.Sobel(grey, cv2.CV_64F, *order, ksize=3) for order in ((1, 0), (0, 1)))
        reference.append(0.5 * sum(np.abs(edge) for edge in both))
    ours = compute("sobel", model, images)
    np.testing.assert_allclose(ours, np.stack(reference), atol=1e-4)


def test_factorisation_fits_as_well_as_scikit_learn(model, torch_model, images):
    import warnings

    from sklearn.decomposition import NMF

    from jaxood.attribution.factorisation import factorise

    a, _ = gradients(torch_model, images, "2")
    rows = a.reshape(-1, a.shape[-1])  # the images together
    where, concepts = (np.asarray(x) for x in factorise(jnp.asarray(rows, jnp.float32), 4, KEY))
    offset = rows.min(0)
    error = np.linalg.norm(rows - offset - where @ (concepts - offset))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sklearn wants more steps
        reference = NMF(4, init="random", random_state=0).fit(rows - offset)
    assert error <= 1.02 * reference.reconstruction_err_
    assert where.min() >= 0 and (concepts - offset).min() >= -1e-5
    np.testing.assert_allclose(where.max(0), 1, atol=1e-6)


def test_factorisation_recovers_concepts():
    """Two concepts that share no position are found as they are, whatever their order."""
    from jaxood.attribution.factorisation import factorise

    where = np.zeros((30, 2), np.float32)
    where[:12, 0], where[15:, 1] = np.linspace(0.2, 1, 12), np.linspace(1, 0.1, 15)
    concepts = np.array([[3, 0, 1, 0], [0, 2, 2, 0]], np.float32)
    found = factorise(jnp.asarray(where @ concepts), 2, KEY)
    order = np.argsort(np.asarray(found.concepts)[:, 1])
    np.testing.assert_allclose(np.asarray(found.where)[:, order], where, atol=1e-3)
    np.testing.assert_allclose(np.asarray(found.concepts)[order], concepts, atol=5e-3)


def test_factorisation_attributes_to_the_targets_concept(model):
    """Left half means class 0, right half class 1."""

    class Halves(nnx.Module):
        head = LinearHead(jnp.array([[5.0, -5.0], [-5.0, 5.0]]), jnp.zeros(2))

        def __call__(self, images):
            left = jnp.arange(6) < 3
            features = jnp.broadcast_to(
                jnp.stack([left, ~left], -1).astype(jnp.float32), (len(images), 4, 6, 2)
            )
            features = features * jnp.abs(images.mean(-1, keepdims=True))
            pooled = features.mean((1, 2))
            return model_outputs(self.head, pooled, features)

    images = np.random.default_rng(1).uniform(0.5, 1, size=(2, 4, 6, 3)).astype(np.float32)
    maps = compute("dff[concepts=2]", Halves(), images, np.array([0, 1]))
    assert maps[0, :, :3].min() > 0.3 and maps[0, :, 3:].max() < 0.01
    assert maps[1, :, 3:].min() > 0.3 and maps[1, :, :3].max() < 0.01


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_every_method_keeps_the_contract(name, soft_model, images):
    """Finite, one an image, not constant, independent of the others in the batch."""
    method = attribution(name)
    if name == "pie":  # the original's training takes a minute
        method = SurrogateValue(SurrogateTraining(epochs=4, masks=400, coalitions=100))
    model = soft_model
    maps = compute(method, model, images)
    assert maps.shape in {(3, 6, 8), (3, 24, 32)} and maps.dtype == np.float32
    varied = np.ptp(maps, axis=(1, 2)) > 0
    # What tells a class from those like it may be negative everywhere, and the ReLU leaves nothing.
    assert np.isfinite(maps).all() and (varied.any() if name == "finer-cam" else varied.all())
    tolerance = {"atol": 2e-4 * np.abs(maps).max()}
    others = [2, 2, 0]
    moved = compute(method, model, images[others], TARGET[others])
    np.testing.assert_allclose(moved, maps[others], **tolerance)


def test_ablation_is_what_the_logit_loses_relative_to_it(model, images):
    """At the last layer in closed form; a negative logit turns the sign."""
    outputs = model(jnp.asarray(images))
    lost = np.asarray(outputs.pooled) * np.asarray(model.head.kernel).T[TARGET]
    logit = np.asarray(outputs.logits)[range(3), TARGET]
    weights = lost / logit[:, None]
    reference = np.maximum((outputs.feature_map * weights[:, None, None]).sum(-1), 0)
    ours = compute("ablationcam", model, images)
    np.testing.assert_allclose(ours, reference, atol=1e-4 * reference.max())


@pytest.mark.parametrize("name", ["score-cam", "ablationcam"])
def test_chunks_do_not_change_the_map(name, model, images):
    maps = compute(name, model, images)
    for chunk in (7, 1000):
        other = compute(attribution(name, chunk=chunk), model, images)
        np.testing.assert_allclose(other, maps, atol=1e-4 * maps.max())


def test_score_cam_runs_dead_channels_once(model, images):
    """Weights of dead channels are those of an empty image; one an image goes forward for them."""
    dead = nnx.clone(model)
    dead.stages["2"].bias[...] = model.stages["2"].bias[...].at[4:].set(-1e3)
    runs = []

    class Counting(nnx.Module):
        head = dead.head

        def __call__(self, images):
            jax.debug.callback(lambda: runs.append(len(images)))
            return dead(images)

    maps = compute("score-cam[chunk=4]", Counting(), images)
    jax.effects_barrier()
    # The images, as many empty ones, and three times four live channels in chunks of four.
    assert sorted(runs) == [3, 3, 4, 4, 4]
    np.testing.assert_allclose(maps, compute("score-cam", dead, images), atol=1e-4 * maps.max())


def test_model_without_stages(model, images):
    class Stageless(nnx.Module):
        def __init__(self):
            self.inner = model

        @property
        def head(self):
            return self.inner.head

        def __call__(self, images):
            return self.inner(images)

    for name in ("grad-cam", "score-cam", "eigencam", "smoothgrad-cam++"):
        chex.assert_trees_all_close(
            compute(name, Stageless(), images),
            compute(name, model, images),
            rtol=1e-4,
        )
    with pytest.raises(UsageError, match="layer: got '1', wanted none"):
        compute("grad-cam[layer=1]", Stageless(), images)


def test_wrong_names(model, images):
    with pytest.raises(UsageError, match="layer: got '7', wanted one of 0, 1, 2"):
        compute("grad-cam[layer=7]", model, images)


@pytest.fixture(scope="module")
def soft_torch_model(torch_model):
    """`soft_model` in torch, in float64."""
    soft = copy.deepcopy(torch_model).double()
    with torch.no_grad():
        soft[-1].weight *= 0.02
    return soft


@pytest.mark.parametrize("layer", ["1", "2"])
@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_finer_cam_by_a_loop(layer, gamma, soft_model, soft_torch_model, images):
    """Image by image, the weights of the references differentiated as well."""
    maps = []
    for image, target in zip(to_torch(images).double(), TARGET, strict=True):
        activation = soft_torch_model[: int(layer) + 1](image[None]).detach().requires_grad_()
        logits = soft_torch_model[int(layer) + 1 :](activation)[0]
        apart = (logits - logits[target]).abs().tolist()
        near = sorted((k for k in range(5) if k != target), key=apart.__getitem__)[:3]
        weights = torch.softmax(logits[near], 0)
        differences = logits[target] - gamma * logits[near]
        score = (weights * differences).sum()
        (gradient,) = torch.autograd.grad(score, activation)
        channels = gradient[0].mean(dim=(1, 2))
        maps.append(torch.relu((channels[:, None, None] * activation[0]).sum(0)).detach().numpy())
    ours = compute(attribution("finer-cam", layer=layer, gamma=gamma), soft_model, images)
    reference = np.stack(maps)
    assert reference.max() > 0
    np.testing.assert_allclose(ours, reference, atol=1e-4 * reference.max())


def seen_through_channels(soft_torch_model, images, layer, factors):
    """Score-CAM's kin image by image, channel by channel, factor by factor."""
    maps = []
    for image, target in zip(to_torch(images).double(), TARGET, strict=True):
        with torch.no_grad():
            activation = soft_torch_model[: int(layer) + 1](image[None])[0]
            scores = []
            for channel in activation:
                spread = channel.max() - channel.min()
                mask = (channel - channel.min()) / (spread if spread > 0 else 1)
                size = {"size": image.shape[1:], "mode": "bilinear", "align_corners": False}
                mask = torch.nn.functional.interpolate(mask[None, None], **size)[0, 0]
                logits = [soft_torch_model((image * f)[None])[0, target] for f in factors(mask)]
                scores.append(sum(logits) / len(logits))
            weights = torch.softmax(torch.stack(scores), 0)
            total = (weights[:, None, None] * activation).sum(0)
        maps.append(torch.relu(total).numpy())
    return np.stack(maps)


@pytest.mark.parametrize("layer", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_ss_cam_by_a_loop(layer, soft_model, soft_torch_model, images):
    noises = [
        0.7 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), images.shape[1:3]))
        for i in range(3)
    ]

    def factors(mask):
        return [mask + torch.from_numpy(noise.astype(np.float64)) for noise in noises]

    reference = seen_through_channels(soft_torch_model, images, layer, factors)
    ours = compute(attribution("ss-cam", layer=layer, samples=3, noise=0.7), soft_model, images)
    assert_same(ours, reference)


@pytest.mark.parametrize("layer", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_is_cam_by_a_loop(layer, soft_model, soft_torch_model, images):
    def factors(mask):
        grown, found = torch.zeros_like(mask), []
        for i in range(1, 5):
            grown = grown + mask * i / 4
            found.append(grown)
        return found

    reference = seen_through_channels(soft_torch_model, images, layer, factors)
    ours = compute(attribution("is-cam", layer=layer, samples=4), soft_model, images)
    assert_same(ours, reference)
