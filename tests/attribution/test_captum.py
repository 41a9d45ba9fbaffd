"""Gradient maps of the real MobileNetV2 against captum 0.9.0's, in float64 and in float32.

A ReLU's gradient jumps at zero: where rounding carries a value across, float32 gives another
gradient than float64, in any code. Over six photographs at 224 pixels the largest difference was
1e-2 of the range between captum's own maps in the two arithmetics, and 8.6e-3 between its float32
maps and ours; where no value crosses, 5e-7. So in float32 a few pixels may differ by more than
1e-3. In float64 none does by more than 1e-6, with the same rounded weights on both sides.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import compute_all
from references import imagenet_photographs, import_torchvision, mobilenet_checkpoint

from jaxood.attribution.registry import attributions
from jaxood.conversion.convert import convert_state_dict
from jaxood.data.decode import read
from jaxood.models.loading import abstract_model, fill
from jaxood.preprocessing import Preprocessing

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.optimised]

PREPROCESSING = Preprocessing(146, 128)
PHOTOGRAPHS = 4
STEPS = 8
AT = np.array([5, 37, 90, 122])  # rows, and columns
CAPTUM = {  # of the first photograph, in float64, at AT[i], AT[i]: captum 0.9.0, torch 2.13.0
    "saliency": [0.0570647206, 0.175741296, 0.0959206312, 0.073904081],
    "input-x-gradient": [0.11939377, -0.254102128, 0.397031737, 0.000639044588],
    "integrated-gradients[steps=8]": [0.467638014, 0.00600809849, 0.509379729, 0.0567249985],
}


@pytest.fixture(scope="module")
def network():
    network = import_torchvision("torchvision.models").mobilenet_v2()
    network.load_state_dict(torch.load(mobilenet_checkpoint(), weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def images():
    pixels = [read(str(path), PREPROCESSING) for path in imagenet_photographs()[:PHOTOGRAPHS]]
    return np.asarray(PREPROCESSING.normalise(jnp.asarray(np.stack(pixels))))


@pytest.fixture(scope="module")
def target(network, images):
    with torch.inference_mode():
        return network(torch.tensor(images.transpose(0, 3, 1, 2))).argmax(1).numpy()


def captums(network, images, target):
    """What captum computes, in float64, by torch's autograd."""
    network = network.double()
    whole = torch.tensor(images.transpose(0, 3, 1, 2)).double()

    def gradient(x):
        x = x.clone().requires_grad_()
        chosen = network(x).gather(1, torch.tensor(target)[:, None])
        return torch.autograd.grad(chosen.sum(), x)[0]

    plain = gradient(whole)
    points, weights = np.polynomial.legendre.leggauss(STEPS)
    along = sum(
        weight / 2 * gradient((point + 1) / 2 * whole)
        for point, weight in zip(points, weights, strict=True)
    )
    return {
        "saliency": plain.abs().amax(1).numpy(),
        "input-x-gradient": (whole * plain).sum(1).numpy(),
        f"integrated-gradients[steps={STEPS}]": (whole * along).sum(1).numpy(),
    }


@pytest.fixture(scope="module")
def expected(network, images, target):
    return captums(copy.deepcopy(network), images, target)


def folded(network):
    """Batch norms folded into convolutions in float64 and rounded to float32, as ours are."""
    network = copy.deepcopy(network).double()
    for part in network.modules():
        if not isinstance(part, torch.nn.Sequential):
            continue
        for i in range(len(part) - 1):
            if isinstance(part[i + 1], torch.nn.BatchNorm2d):
                part[i], part[i + 1] = (
                    torch.nn.utils.fusion.fuse_conv_bn_eval(part[i], part[i + 1]),
                    torch.nn.Identity(),
                )
    return network.float()


def test_the_reference_is_captum(expected):
    for name, values in CAPTUM.items():
        np.testing.assert_allclose(expected[name][0][AT, AT], values, rtol=1e-6)


def maps_of(network, images, target, names, dtype):
    arrays = convert_state_dict(network.state_dict(), "mobilenet_v2")

    def weight(path):
        return jnp.asarray(arrays[path], dtype)

    model = fill(abstract_model("mobilenet_v2", 1000), weight)
    methods = list(attributions(names).values())
    return compute_all(methods, model, jnp.asarray(images, dtype), target)


def test_maps_in_float64(images, target, network):
    """With the same weights and in one arithmetic there is no such pixel: all of them agree."""
    references = captums(folded(network), images, target)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        maps = maps_of(network, images, target, list(references), jnp.float64)
    for (name, reference), found in zip(references.items(), maps, strict=True):
        for one, other in zip(found, reference, strict=True):
            assert np.abs(one - other).max() <= 1e-6 * np.ptp(other), name


def test_maps_in_float32(images, target, expected, network):
    maps = maps_of(network, images, target, list(expected), jnp.float32)
    for (name, references), found in zip(expected.items(), maps, strict=True):
        for one, reference in zip(found, references, strict=True):
            difference = np.abs(one - reference) / np.ptp(reference)
            assert np.corrcoef(one.ravel(), reference.ravel())[0, 1] > 0.999, name
            assert np.quantile(difference, 0.9) <= 1e-3, name
            assert difference.max() <= 2e-2, name
