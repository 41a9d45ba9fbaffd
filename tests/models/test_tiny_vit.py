"""TinyViT against timm's, at three depths: whole windows, and windows over the border."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import import_timm
from torch_networks import noise, randomise

from jaxood.attribution.coalitions import coalition_values
from jaxood.attribution.designs import draw_coalitions
from jaxood.conversion import convert_state_dict
from jaxood.conversion.parity import errors, run, torch_outputs
from jaxood.heads import NormLinearHead
from jaxood.models import tiny_vit
from jaxood.models.loading import abstract_model, fill
from jaxood.models.registry import ARCHITECTURES, Architecture

SMALL = tiny_vit.Design((8, 16, 24, 32), (1, 2, 3, 4))


def converted(network, name, classes):
    arrays = convert_state_dict(network.state_dict(), name)
    return fill(abstract_model(name, classes), lambda path: jnp.asarray(arrays[path]))


@pytest.fixture(scope="module")
def small():
    module = import_timm("timm.models.tiny_vit")
    network = module.TinyVit(
        num_classes=7,
        embed_dims=SMALL.widths,
        depths=tiny_vit.DEPTHS,
        num_heads=SMALL.heads,
        window_sizes=SMALL.windows,
    )
    randomise(network)
    build = partial(tiny_vit.tiny_vit, SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny_vit_small", Architecture(build, {}))
        yield network, converted(network, "tiny_vit_small", 7)


@pytest.mark.parametrize(
    "side", [pytest.param(224, marks=pytest.mark.long), 160]
)  # 160: maps of 20, 10 and 5, no multiple of 7
def test_three_depths_equal_timms(small, side):
    network, model = small
    images = noise(2, side)
    ours = run(model, images)
    assert ours.feature_map.shape == (2, side // 32, side // 32, 32)
    assert max(errors(ours, torch_outputs(network, "stages", images)).values()) < 1e-5


def test_the_norm_after_pooling_is_the_heads(small):
    _, model = small
    assert isinstance(model.head, NormLinearHead)
    assert model.head.epsilon == 1e-5


@pytest.mark.long
@pytest.mark.parametrize("side", [96, 224])  # maps of 3 x 3, all coalitions, and of 7 x 7
def test_attribution_equals_timms_head_evaluated_on_every_change(small, side):
    torch = pytest.importorskip("torch")
    network, model = small
    outputs = run(model, noise(2, side))
    positions = (side // 32) ** 2
    if positions == 9:
        rows = jnp.asarray(list(product((False, True), repeat=9)))
    else:
        rows = draw_coalitions(jax.random.key(0), 24, positions)[0]
    values = coalition_values(outputs.feature_map, model.head, rows[None]).values

    norm, linear = network.head.norm, network.head.fc
    shape, weights = (linear.in_features,), (norm.weight.double(), norm.bias.double())
    features = torch.tensor(np.asarray(outputs.feature_map)).double().reshape(2, positions, -1)
    for image, target in enumerate(np.asarray(outputs.logits).argmax(axis=1)):

        def value(rows, image=image, target=int(target)):
            pooled = torch.tensor(np.asarray(rows)).double() @ features[image] / positions
            normed = torch.nn.functional.layer_norm(pooled, shape, *weights, norm.eps)
            logits = normed @ linear.weight.double().T + linear.bias.double()
            return torch.softmax(logits, dim=1)[:, target].detach().numpy()

        expected = [
            (value(rows.at[:, i].set(True)) - value(rows.at[:, i].set(False))).mean()
            for i in range(positions)
        ]
        assert np.ptp(expected) > 1e-3  # else nothing would be attributed
        np.testing.assert_allclose(
            np.ravel(values[image]), expected, atol=2e-5 * np.abs(expected).max()
        )


def test_bias_entries_by_hand():
    # Positions 0 1 / 2 3: offsets (0,0) (0,1) / (1,0) (1,1) are entries 0 1 2 3.
    wanted = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    np.testing.assert_array_equal(tiny_vit.offset_indices(2), wanted)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "tiny_vit_11m_224", "tiny_vit_21m_224"])
def test_full_size_equals_timms(name):
    network = randomise(import_timm().create_model(name, num_classes=1000), 224)
    images = noise(2, 224)
    ours = run(converted(network, name, 1000), images)
    assert max(errors(ours, torch_outputs(network, "stages", images)).values()) < 1e-4
