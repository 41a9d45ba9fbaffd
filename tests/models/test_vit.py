"""ViT against torchvision's, at three depths, and where its gradients go."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import import_torchvision
from torch_networks import noise, randomise

from jaxood.conversion import convert_state_dict
from jaxood.conversion.parity import errors, run, torch_outputs
from jaxood.models.loading import abstract_model, fill
from jaxood.models.registry import ARCHITECTURES, Architecture
from jaxood.models.vit import vit

SMALL = {"image_size": 64, "depth": 3, "width": 48, "heads": 3}


def converted(network, name, classes):
    arrays = convert_state_dict(network.state_dict(), name)
    return fill(abstract_model(name, classes), lambda path: jnp.asarray(arrays[path]))


@pytest.fixture
def small(monkeypatch):
    """torchvision's network of this size, and ours with its weights."""
    build = partial(vit, **SMALL)
    monkeypatch.setitem(ARCHITECTURES, "vit_b_16_small", Architecture(build, {}))
    models = import_torchvision("torchvision.models.vision_transformer")
    network = models.VisionTransformer(64, 16, 3, 3, 48, 192, num_classes=7)
    randomise(network)
    return network, converted(network, "vit_b_16_small", 7)


def test_three_depths_equal_torchvisions(small):
    network, model = small
    images = noise(3, 64)
    theirs = torch_outputs(network, "encoder.layers", images)
    ours = run(model, images)
    assert ours.feature_map.shape == (3, 4, 4, 48)
    assert max(errors(ours, theirs).values()) < 1e-5


def test_published_files_name_their_mlp_otherwise(small):
    network, model = small
    old = {
        key.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): value
        for key, value in network.state_dict().items()
    }
    ours = convert_state_dict(old, "vit_b_16_small")
    kernel = model.stages["encoder_layer_2"].fc2.kernel[...]
    np.testing.assert_array_equal(ours["stages/encoder_layer_2/fc2/kernel"], kernel)


def test_the_gradient_reaches_the_patches_of_the_cam_layer_only(small):
    _, model = small
    images = jnp.asarray(noise(2, 64))

    def gradient(stage):
        tokens = model.run(images, stop=stage)

        def logit(tokens):
            return model.outputs(model.run(tokens, start=stage)).logits[:, 0].sum()

        return np.asarray(model.spatial(jax.jit(jax.grad(logit))(tokens)))

    assert model.cam_layer == "encoder_layer_1"
    assert np.abs(gradient(model.cam_layer)).max() > 1e-4
    assert np.abs(gradient("encoder_layer_2")).max() == 0


def test_patches_lie_where_they_are_in_the_image(small):
    _, model = small
    image = jnp.zeros((1, 64, 64, 3))
    other = image.at[0, 16:32, 48:64].set(1)  # row 1, column 3 of the grid
    moved = model.spatial(model.run(image, stop="conv_proj") - model.run(other, stop="conv_proj"))
    changed = np.argwhere(np.abs(np.asarray(moved)[0]).max(-1) > 0)
    np.testing.assert_array_equal(changed, [[1, 3]])


@pytest.mark.long
@pytest.mark.parametrize(("name", "side"), [("vit_b_16", 224), ("vit_b_16_384", 384)])
def test_full_size_equals_torchvisions(name, side):
    models = import_torchvision("torchvision.models")
    network = randomise(models.vit_b_16(image_size=side), side)
    images = noise(2, side)
    theirs = torch_outputs(network, "encoder.layers", images)
    ours = run(converted(network, name, 1000), images)
    assert max(errors(ours, theirs).values()) < 1e-4
