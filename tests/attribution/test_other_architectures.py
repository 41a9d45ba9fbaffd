"""Maps of transformers and of ConvNeXt against torch in float64, on the publishers' networks.

Random weights; GELU has no kinks, so that float32 stays close everywhere.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from contexts import compute_all

from jaxood.attribution.registry import attributions
from jaxood.conversion.convert import convert_state_dict
from jaxood.conversion.parity import find_reference, import_publisher
from jaxood.models.loading import abstract_model, fill
from jaxood.models.registry import ARCHITECTURES

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.optimised]

CLASSES, STEPS = 10, 2
LAYERS = {  # the publisher's name of the layer of class activation maps
    "vit_s_16": "blocks.10",
    "swin_t": "norm",
    "convnext_tiny": "features.7.2",
    "tiny_vit_5m_224": "stages",
}


class Case(NamedTuple):
    model: object
    images: np.ndarray
    target: np.ndarray
    activation: np.ndarray
    gradient: np.ndarray
    pixels: np.ndarray
    along: np.ndarray


def as_map(found):
    """[n, h, w, c] in numpy, of tokens behind a class token, or channels first or last."""
    found = found.detach().numpy()
    if found.ndim == 3:
        side = round((found.shape[1] - 1) ** 0.5)
        return found[:, 1:].reshape(len(found), side, side, -1)
    return found if found.shape[1] == found.shape[2] else found.transpose(0, 2, 3, 1)


@pytest.fixture(scope="module", params=LAYERS)
def case(request):
    name = request.param
    torch.manual_seed(0)
    reference = find_reference(name, next(iter(ARCHITECTURES[name].tags.values())).layout)
    network = reference.build(import_publisher(reference.package), name, CLASSES).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # what starts at zero or one tells little
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    arrays = convert_state_dict(network.state_dict(), name, reference.layout)
    model = fill(abstract_model(name, CLASSES), lambda path: jnp.asarray(arrays[path]))
    images = np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32)

    network = network.double()
    whole = torch.tensor(images.transpose(0, 3, 1, 2)).double()
    kept = []
    layer = network.get_submodule(LAYERS[name])
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    pixels = whole.clone().requires_grad_()
    logits = network(pixels)
    hook.remove()
    target = logits.argmax(1)
    scores = logits.gather(1, target[:, None]).sum()
    plain, gradient = torch.autograd.grad(scores, [pixels, kept[0]])
    along = torch.zeros_like(whole)
    for point, weight in zip(*np.polynomial.legendre.leggauss(STEPS), strict=True):
        at = ((point + 1) / 2 * whole).requires_grad_()
        chosen = network(at).gather(1, target[:, None]).sum()
        along += weight / 2 * torch.autograd.grad(chosen, at)[0]

    def last(array):
        return array.numpy().transpose(0, 2, 3, 1)

    return Case(
        model,
        images,
        target.numpy(),
        as_map(kept[0]),
        as_map(gradient),
        last(plain),
        last(along),
    )


def expected(case):
    a, g, x = case.activation, case.gradient, case.images.astype(np.float64)

    def positive(values):
        return np.maximum(values, 0)

    def divided(left, right):
        return np.divide(left, right, out=np.zeros_like(left), where=right != 0)

    share = divided((a * g).sum((1, 2), keepdims=True), a.sum((1, 2), keepdims=True))
    return {
        "saliency": np.abs(case.pixels).max(-1),
        "input-x-gradient": (x * case.pixels).sum(-1),
        f"integrated-gradients[steps={STEPS}]": (x * case.along).sum(-1),
        "grad-cam": positive((a * g.mean((1, 2), keepdims=True)).sum(-1)),
        "hirescam": (a * g).sum(-1),
        "layercam": positive((a * positive(g)).sum(-1)),
        "elementwise-grad-cam": positive(a * g).sum(-1),
        "xgrad-cam": positive((a * share).sum(-1)),
    }


def test_maps(case):
    references = expected(case)
    methods = list(attributions(list(references)).values())
    maps = compute_all(methods, case.model, case.images, case.target)
    for (name, reference), found in zip(references.items(), maps, strict=True):
        assert np.abs(reference).max() > 0, name
        difference = np.abs(found - reference).max()
        # Before a norm the sum over channels may be all but nothing: what is left is rounding.
        rounding = 1e-5 * np.abs(case.activation * case.gradient).sum(-1).max()
        bound = 1e-3 * np.ptp(reference) + rounding * name.endswith("cam")
        assert difference <= bound, f"{name}: {difference / np.ptp(reference)}"
