"""The CAM family on the real MobileNetV2 and real photographs, small crops to save time."""

import jax.numpy as jnp
import numpy as np
import pytest
from contexts import compute_all
from flax import nnx
from references import imagenet_photographs, import_torchvision, mobilenet_checkpoint

from jaxood.attribution.registry import attributions
from jaxood.conversion.convert import convert_state_dict
from jaxood.data.decode import read
from jaxood.models.loading import abstract_model, fill
from jaxood.preprocessing import Preprocessing

torch = pytest.importorskip("torch")
SMALL = Preprocessing(110, 96)


@pytest.fixture(scope="module")
def torch_model():
    model = import_torchvision("torchvision.models").mobilenet_v2()
    model.load_state_dict(torch.load(mobilenet_checkpoint(), weights_only=True))
    return model.eval()


@pytest.fixture(scope="module")
def model(torch_model):
    arrays = convert_state_dict(torch_model.state_dict(), "mobilenet_v2")
    return fill(abstract_model("mobilenet_v2", 1000), lambda path: jnp.asarray(arrays[path]))


@pytest.fixture(scope="module")
def images():
    pixels = np.stack([read(str(path), SMALL) for path in imagenet_photographs()[:2]])
    return SMALL.normalise(jnp.asarray(pixels))


@pytest.fixture(scope="module")
def as_torch(images):
    return torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def target(torch_model, as_torch):
    with torch.inference_mode():
        return torch_model(as_torch).argmax(1).numpy()


def compute(names, model, images, target, **parameters):
    """All methods in one compilation."""
    methods = attributions(names, **parameters).values()
    maps = compute_all(list(methods), model, images, target)
    return dict(zip(names, maps, strict=True))


def assert_same(ours, reference):
    for one, other in zip(ours, reference, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
        assert np.abs(one - other).max() <= 1e-3 * np.ptp(other)


def finished(maps, size=(96, 96)):
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(scale_cam_image(np.maximum(maps, 0), size))


GRAD_CAM_NAMES = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "layercam": "LayerCAM",
    "elementwise-grad-cam": "GradCAMElementWise",
    "hirescam": "HiResCAM",
}


def test_gradient_cams_equal_grad_cam(model, torch_model, images, as_torch, target):
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps = compute(list(GRAD_CAM_NAMES), model, images, target, epsilon=1e-6)  # grad-cam's
    module = torch_model.features[18]
    for name, ours in maps.items():
        cam = getattr(package, GRAD_CAM_NAMES[name])(torch_model, [module])
        reference = cam(as_torch, [ClassifierOutputTarget(int(t)) for t in target])
        assert np.ptp(reference, axis=(1, 2)).min() > 0.9, name
        assert_same(finished(ours), reference)


@pytest.mark.long
def test_full_grad_equals_grad_cam(model, torch_model, images, as_torch, target):
    """With logits a thousand times larger, so that grad-cam's constant 1e-7 does not count."""
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    louder = nnx.clone(model)
    louder.classifier.kernel[...] = 1000 * model.classifier.kernel[...]
    maps = compute(["fullgrad"], louder, images, target)["fullgrad"]
    head = torch_model.classifier[1]
    head.weight.data *= 1000
    try:
        cam = package.FullGrad(torch_model, [])
        reference = cam(as_torch, [ClassifierOutputTarget(int(t)) for t in target])
    finally:
        head.weight.data /= 1000
    assert_same(finished(maps), reference)


@pytest.mark.long
def test_score_cam_equals_torchcam(model, torch_model, images, as_torch, target):
    """At a layer of 160 channels whose values have both signs."""
    methods = pytest.importorskip("torchcam.methods")
    images, as_torch, target = images[:1], as_torch[:1], target[:1]
    with methods.ScoreCAM(torch_model, "features.16") as extractor, torch.inference_mode():
        torch_model(as_torch)
        reference = extractor(int(target[0]))[0].numpy()
    maps = compute(["score-cam"], model, images, target, layer="features.16", chunk=32)
    low, high = maps["score-cam"].min(), maps["score-cam"].max()
    assert_same((maps["score-cam"] - low) / (high - low), reference)
