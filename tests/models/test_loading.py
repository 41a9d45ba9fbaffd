"""Weights files, names of classes, and whatever else a user may call a model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import flipped
from flax import nnx

import jaxood
from jaxood.cli import main
from jaxood.data.class_names import imagenet_names
from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.loading import (
    abstract_model,
    checked_names,
    load_weights,
    parameters,
    save_weights,
)
from jaxood.models.registry import ARCHITECTURES, Architecture
from jaxood.models.weights_file import WeightsInfo, open_weights, write_weights
from jaxood.preprocessing import Preprocessing

IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 3), np.float32))


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
    loaded = load_weights(path, "digits_cnn")
    assert (loaded.name, loaded.tag, loaded.dtype) == ("digits_cnn", "digits", "float32")
    assert loaded.preprocessing == ARCHITECTURES["digits_cnn"].tags["digits"].preprocessing
    np.testing.assert_array_equal(loaded.module(IMAGES).logits, model(IMAGES).logits)
    assert load_weights(path).weights_hash == loaded.weights_hash
    assert len(loaded.weights_hash) == 64


def test_the_file_is_plain_safetensors(digits):
    from safetensors.numpy import load_file

    model, path = digits
    arrays = load_file(path)
    assert set(arrays) == set(parameters(model))
    np.testing.assert_array_equal(arrays["stages/conv2/kernel"], model.stages["conv2"].kernel[...])


def test_bfloat16_is_the_backbones_only(digits):
    model, path = digits
    loaded = load_weights(path, dtype="bfloat16")
    assert loaded.dtype == "bfloat16"
    assert loaded.module.stages["conv1"].kernel.dtype == jnp.bfloat16
    assert loaded.module.classifier.kernel.dtype == jnp.float32
    outputs = loaded.module(IMAGES.astype(jnp.bfloat16))
    assert outputs.pooled.dtype == outputs.logits.dtype == jnp.float32
    np.testing.assert_allclose(outputs.logits, model(IMAGES).logits, atol=0.05)
    assert np.abs(outputs.logits - model(IMAGES).logits).max() > 0


def test_tensorfloat32_changes_products_alone(digits):
    """A CPU has no such products; features are not taken for those of float32, yet."""
    model, path = digits
    loaded = load_weights(path, dtype="tensorfloat32")
    assert loaded.module.products == "tensorfloat32" and loaded.array_type == "float32"
    assert loaded.module.stages["conv1"].kernel.dtype == jnp.float32
    assert loaded.identity() != load_weights(path).identity()
    np.testing.assert_array_equal(loaded.module(IMAGES).logits, model(IMAGES).logits)


def test_shapes_cost_nothing():
    for array in parameters(abstract_model("regnet_y_16gf", 1000)).values():
        assert isinstance(array, jax.ShapeDtypeStruct)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_files(digits, keep):
    _, path = digits
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="weights: got .*wanted a whole safetensors") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_other_files(digits, tmp_path):
    from safetensors.numpy import save_file

    _, path = digits
    with pytest.raises(UsageError, match="wanted an existing weights file.*jaxood convert"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match=r"\(digits_cnn\), wanted weights for resnet50"):
        load_weights(path, "resnet50")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="this package's metadata.*jaxood convert"):
        load_weights(tmp_path / "a.safetensors")
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UsageError, match="Make one from a PyTorch checkpoint with jaxood convert"):
        load_weights(tmp_path / "a.pth")
    with pytest.raises(UsageError, match="tag: got 'digit', wanted one of digits"):
        load_weights(path, tag="digit")
    known = "bfloat16, float32, tensorfloat32"
    with pytest.raises(UsageError, match=f"dtype: got 'float16', wanted one of {known}"):
        load_weights(path, dtype="float16")


def test_parameters_that_do_not_fit_are_named(digits, tmp_path):
    model, path = digits
    _, info = open_weights(path)
    arrays = {name: np.asarray(array) for name, array in parameters(model).items()}
    arrays["stages/conv9/bias"] = arrays.pop("stages/conv1/bias")
    arrays["stages/conv2/bias"] = np.zeros(3)
    shapes = {name: array.shape for name, array in arrays.items()}
    write_weights(tmp_path / "w", shapes, arrays.__getitem__, info)
    with pytest.raises(UsageError) as caught:
        load_weights(tmp_path / "w")
    for part in (
        "lacks stages/conv1/bias",
        "has stages/conv9/bias besides",
        "stages/conv2/bias is (3,), not (64,)",
    ):
        assert part in str(caught.value)


def test_any_flipped_bit_is_noticed(digits, tmp_path):
    _, path = digits
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    file = tmp_path / "flipped.safetensors"
    generator = np.random.default_rng(0)
    inside = [*generator.integers(0, header, 100), *generator.integers(header, len(content), 100)]
    for changed in flipped(content, inside, generator):
        file.write_bytes(changed)
        with pytest.raises(UsageError) as caught:
            load_weights(file)
        assert "\n" not in str(caught.value)
    for length in generator.integers(0, len(content), 20):
        file.write_bytes(content[:length])
        with pytest.raises(UsageError):
            load_weights(file)


def test_a_damaged_file_of_the_cache_is_made_anew(digits, tmp_path, monkeypatch):
    import jaxood.demo.digits

    model, path = digits
    content = path.read_bytes()
    (tmp_path / "digits_cnn-v1.safetensors").write_bytes(content[:-5] + b"12345")
    monkeypatch.setattr(jaxood.demo.digits, "train_digits", lambda: model)
    assert jaxood.demo.digits.digits_weights(tmp_path).read_bytes() == content


def test_a_tag_brings_its_preprocessing(digits, monkeypatch):
    _, path = digits
    entry = ARCHITECTURES["digits_cnn"]
    other = dataclasses.replace(entry.tags["digits"], preprocessing=Preprocessing(9, 8))
    tags = entry.tags | {"other": other}
    monkeypatch.setitem(ARCHITECTURES, "digits_cnn", Architecture(entry.build, tags))
    loaded = load_weights(path, tag="other")
    assert (loaded.tag, loaded.preprocessing.resize) == ("other", 9)


def test_metadata_goes_there_and_back():
    prepared = Preprocessing(235, 224, "bicubic")
    info = WeightsInfo("a", "t", prepared, 2, ("caf\u00e9", "b, c"), "timm", "ab", "v")
    assert WeightsInfo.from_strings(info.as_strings()) == info


NAMES = ("zero", "one", "two", "three", "four", "five")


@pytest.fixture
def named(digits, tmp_path):
    """The same network, its file with names of the classes."""
    model, path = digits
    _, info = open_weights(path)
    arrays = {name: np.asarray(array) for name, array in parameters(model).items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    file = tmp_path / "named.safetensors"
    write_weights(file, shapes, arrays.__getitem__, dataclasses.replace(info, class_names=NAMES))
    return file


def test_names_of_classes(digits, named, tmp_path):
    _, path = digits
    assert jaxood.load_model(path).class_names == tuple(f"class {i}" for i in range(6))
    assert jaxood.load_model(named).class_names == NAMES
    other = [name.upper() for name in NAMES]
    assert jaxood.load_model(named, classes=other).class_names == tuple(other)
    file = tmp_path / "names.txt"
    file.write_text("\ufeff" + "\r\n".join(other) + "\n", "utf-8")
    assert jaxood.load_model(named, classes=file).class_names == tuple(other)
    assert checked_names((), 1000) == imagenet_names()


def test_names_without_an_end_are_not_read(named):
    with pytest.raises(UsageError, match="classes: got /dev/zero .not a regular file."):
        jaxood.load_model(named, classes="/dev/zero")


def test_names_that_are_not_one_a_class(named, tmp_path):
    file = tmp_path / "names.txt"
    for content, message in (
        ("a\nb\n", "classes: got 2 names, wanted 6, one a class of the model"),
        ("a\n\nb\n", "classes: got .*names.txt with empty lines, wanted a name a line"),
        ("", "classes: got .*names.txt with empty lines"),
        (b"\xff\xfe\x00", "classes: got .*names.txt .*, wanted a text file, a name a line"),
    ):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UsageError, match=message):
            jaxood.load_model(named, classes=file)
    with pytest.raises(UsageError, match="classes: got .*none.txt .*, wanted a text file"):
        jaxood.load_model(named, classes=tmp_path / "none.txt")


def test_the_architecture_and_the_tag_by_name(digits, tmp_path):
    _, path = digits
    assert jaxood.load_model(path, arch="digits_cnn.digits").tag == "digits"
    assert jaxood.load_model(str(path)).name == "digits_cnn"
    loaded = jaxood.load_model(path)
    assert jaxood.load_model(loaded) is loaded
    for name, message in (
        ("resnet50", r"weights: got none, wanted a weights file for resnet50\. Make one .* with"),
        ("resnet50.a1_in1k", "weights: got none, wanted a weights file for resnet50"),
        ("resnet5", "model: got 'resnet5', .*Did you mean resnet50"),
        ("resnet50.a1", "model: got 'a1', wanted one of IMAGENET1K_V1, .*a1_in1k"),
        ("", "model: got '', wanted a weights file or the name of a model"),
        ("a\0b", r"model: got 'a\\x00b', wanted a weights file"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            jaxood.load_model(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="model: got 'resnet5', .*Did you mean resnet50"):
        jaxood.load_model(path, arch="resnet5")


def test_a_file_that_is_not_there_is_no_architecture(tmp_path):
    with pytest.raises(UsageError, match="weights: got .*, wanted an existing weights file"):
        jaxood.load_model(tmp_path / "none.safetensors")


def test_the_embedded_network_is_trained_once(cache):
    loaded = jaxood.load_model(cache=cache)
    assert (loaded.name, loaded.classes) == ("digits_cnn", 6)
    assert jaxood.load_model("digits_cnn", cache=cache).identity() == loaded.identity()


USERS = """
import jax.numpy as jnp
from flax import nnx
import jaxood


class Means(nnx.Module):
    preprocessing = jaxood.Preprocessing(40, 32)
    class_names = ("even", "odd")

    def __init__(self):
        self.kernel = nnx.Param(jnp.arange(6.0).reshape(3, 2))

    @property
    def head(self):
        return jaxood.LinearHead(self.kernel[...], jnp.zeros(2))

    def __call__(self, images):
        feature_map = images
        pooled = feature_map.mean(axis=(1, 2))
        return jaxood.model_outputs(self.head, pooled, feature_map)


def build():
    return Means()


def wrong():
    return lambda images: images


def needs(an_argument):
    return Means()


number = 3
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of a user's own in the working folder."""
    (tmp_path / "users_model_for_test.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    return "users_model_for_test"


def test_a_model_of_the_users_own(users):
    loaded = jaxood.load_model(f"{users}:build")
    assert isinstance(loaded.module, nnx.Module)
    assert (loaded.preprocessing.crop, loaded.pooling) == (32, "mean")
    assert (loaded.name, loaded.classes, loaded.class_names) == (
        f"{users}:build",
        2,
        ("even", "odd"),
    )
    np.testing.assert_allclose(loaded.module(jnp.ones((1, 2, 2, 3))).logits, [[6, 9]])
    module = loaded.module
    for source in (module, type(module), lambda: module, f"{users}:Means"):
        assert jaxood.load_model(source).identity()["weights_sha256"] == loaded.weights_hash
    with pytest.raises(UsageError, match="tag: got V1, wanted none"):
        jaxood.load_model(module, tag="V1")
    with pytest.raises(UsageError, match="dtype: got bfloat16, wanted float32"):
        jaxood.load_model(module, dtype="bfloat16")


IMPORT_PATHS = {
    "users_model_for_test:wrong": "which gave function, wanted a flax.nnx.Module, or a function",
    "users_model_for_test:needs": "needs .*missing 1 required positional argument.*, wanted a flax",
    "users_model_for_test:number": "users_model_for_test:number, wanted a flax.nnx.Module",
    "users_model_for_test:buidl": "has no attribute 'buidl'.*wanted package.module:name",
    "nowhere:build": "No module named 'nowhere'",
    "os:system": "os:system .*, wanted a flax.nnx.Module, or a function",
    "os:getcwd": "os:getcwd, which gave str, wanted a flax.nnx.Module",
    "os:path": "os:path, wanted a flax.nnx.Module",
    "os:": "wanted package.module:name that can be imported",
    ":build": "wanted package.module:name that can be imported",
    "..models:build": "wanted package.module:name that can be imported",
    "os:path:join": "wanted package.module:name that can be imported",
}


@pytest.mark.parametrize("path", IMPORT_PATHS)
def test_import_paths_to_something_else(users, capsys, path):
    with pytest.raises(UsageError, match=f"^model: got .*{IMPORT_PATHS[path]}") as caught:
        jaxood.load_model(path)
    assert "\n" not in str(caught.value)
    assert main("road", ["x.png", "--model", path]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("jaxood road: ")
    assert printed.err.count("\n") == 1


def test_weights_beside_an_import_path(users, capsys, tmp_path):
    command = ["x.png", "--model", f"{users}:build", "--weights", str(tmp_path / "w")]
    assert main("road", command) == 2
    assert "A model of your own loads its weights itself" in capsys.readouterr().err
