"""Loading weights files and models of the user's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.loading import abstract_model, load_model, parameters, save_weights
from jaxood.models.registry import ARCHITECTURES, Architecture
from jaxood.models.weights_file import WeightsInfo, open_weights, write_weights
from jaxood.preprocessing import Preprocessing

IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3), np.float32)


@pytest.fixture
def digits(tmp_path):
    """A filled network and its weights file."""
    model = digits_cnn(6)
    initialise(model, jax.random.key(0))
    path = tmp_path / "new" / "digits.safetensors"
    save_weights(path, model, "digits_cnn", "digits")
    return model, path


def test_saved_and_loaded_the_same(digits):
    model, path = digits
    loaded = load_model("digits_cnn", path)
    assert (loaded.name, loaded.tag, loaded.dtype) == ("digits_cnn", "digits", "float32")
    assert loaded.preprocessing == ARCHITECTURES["digits_cnn"].tags["digits"].preprocessing
    np.testing.assert_array_equal(loaded.module(IMAGES).logits, model(IMAGES).logits)
    assert load_model(None, path).weights_hash == loaded.weights_hash
    assert len(loaded.weights_hash) == 64


def test_the_file_is_plain_safetensors(digits):
    from safetensors.numpy import load_file

    model, path = digits
    arrays = load_file(path)
    assert set(arrays) == set(parameters(model))
    np.testing.assert_array_equal(arrays["stages/conv2/kernel"], model.stages["conv2"].kernel[...])


def test_bfloat16_is_the_backbones_only(digits):
    model, path = digits
    loaded = load_model(None, path, dtype="bfloat16")
    assert loaded.dtype == "bfloat16"
    assert loaded.module.stages["conv1"].kernel.dtype == jnp.bfloat16
    assert loaded.module.classifier.kernel.dtype == jnp.float32
    outputs = loaded.module(IMAGES.astype(jnp.bfloat16))
    assert outputs.pooled.dtype == outputs.logits.dtype == jnp.float32
    np.testing.assert_allclose(outputs.logits, model(IMAGES).logits, atol=0.05)
    assert np.abs(outputs.logits - model(IMAGES).logits).max() > 0


def test_shapes_cost_nothing():
    for array in parameters(abstract_model("regnet_y_16gf", 1000)).values():
        assert isinstance(array, jax.ShapeDtypeStruct)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_files(digits, keep):
    _, path = digits
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="--weights: got .*wanted a whole safetensors") as caught:
        load_model(None, path)
    assert "\n" not in str(caught.value)


def test_other_files(digits, tmp_path):
    from safetensors.numpy import save_file

    _, path = digits
    with pytest.raises(UsageError, match="wanted an existing weights file"):
        load_model(None, tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match=r"\(digits_cnn\), wanted weights for resnet50"):
        load_model("resnet50", path)
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="this package's metadata.*jaxood convert"):
        load_model(None, tmp_path / "a.safetensors")
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UsageError, match="jaxood convert --checkpoint"):
        load_model(None, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="--weights: got none"):
        load_model("resnet50")
    with pytest.raises(UsageError, match="Did you mean resnet50"):
        load_model("resnet5", path)
    with pytest.raises(UsageError, match="--tag.*digits"):
        load_model(None, path, tag="digit")


def test_parameters_that_do_not_fit_are_named(digits, tmp_path):
    model, path = digits
    _, info = open_weights(path)
    arrays = {name: np.asarray(array) for name, array in parameters(model).items()}
    arrays["stages/conv9/bias"] = arrays.pop("stages/conv1/bias")
    arrays["stages/conv2/bias"] = np.zeros(3)
    shapes = {name: array.shape for name, array in arrays.items()}
    write_weights(tmp_path / "w", shapes, arrays.__getitem__, info)
    with pytest.raises(UsageError) as caught:
        load_model(None, tmp_path / "w")
    for part in (
        "lacks stages/conv1/bias",
        "has stages/conv9/bias besides",
        "stages/conv2/bias is (3,), not (64,)",
    ):
        assert part in str(caught.value)


def test_a_tag_brings_its_preprocessing(digits, monkeypatch):
    _, path = digits
    entry = ARCHITECTURES["digits_cnn"]
    other = dataclasses.replace(entry.tags["digits"], preprocessing=Preprocessing(9, 8))
    tags = entry.tags | {"other": other}
    monkeypatch.setitem(ARCHITECTURES, "digits_cnn", Architecture(entry.build, tags))
    loaded = load_model(None, path, tag="other")
    assert (loaded.tag, loaded.preprocessing.resize) == ("other", 9)


def test_metadata_goes_there_and_back():
    info = WeightsInfo("a", "t", Preprocessing(235, 224, "bicubic"), 7, "timm", "ab", "v")
    assert WeightsInfo.from_strings(info.as_strings()) == info


OWN = """
import jax.numpy as jnp
from flax import nnx
from jaxood.outputs import LinearHead, ModelOutputs
from jaxood.preprocessing import Preprocessing


class Own(nnx.Module):
    preprocessing = Preprocessing(40, 32)

    def __init__(self):
        self.kernel = nnx.Param(jnp.arange(6.0).reshape(3, 2))

    @property
    def head(self):
        return LinearHead(self.kernel[...], jnp.zeros(2))

    def __call__(self, images):
        pooled = images.mean(axis=(1, 2))
        return ModelOutputs(images, pooled, self.head(pooled))


def build():
    return Own()


def wrong():
    return lambda images: images
"""


def test_a_model_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_model_for_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    loaded = load_model("own_model_for_test:build")
    assert isinstance(loaded.module, nnx.Module)
    assert (loaded.preprocessing.crop, loaded.tag) == (32, "own")
    np.testing.assert_allclose(loaded.module(np.ones((1, 2, 2, 3), np.float32)).logits, [[6, 9]])
    assert len(loaded.weights_hash) == 64
    with pytest.raises(UsageError, match="which gave function, wanted a function that returns"):
        load_model("own_model_for_test:wrong")
    with pytest.raises(UsageError, match="has no attribute 'buidl'"):
        load_model("own_model_for_test:buidl")
    with pytest.raises(UsageError, match="No module named 'nowhere'"):
        load_model("nowhere:build")
    with pytest.raises(UsageError, match="loads its own weights"):
        load_model("own_model_for_test:build", tmp_path / "w")
