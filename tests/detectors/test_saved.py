"""Detector files: the same scores bit for bit, the right model only, no half-written file."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxood.detectors.methods import DETECTORS, TRANSFORMS, VIEWS, parse_method
from jaxood.detectors.neighbours import HostRows
from jaxood.detectors.saved import (
    SavedDetector,
    load_detector,
    model_identity,
    save_detector,
    spelled_out,
)
from jaxood.errors import UsageError
from jaxood.models.registry import LoadedModel
from jaxood.outputs import LinearHead, ModelOutputs
from jaxood.preprocessing import Preprocessing

MODEL = LoadedModel(nnx.Module(), Preprocessing(256, 224), "resnet50", "a1", "ab12", "float32")


def draw(n, seed):
    generator = np.random.default_rng(seed)
    head = LinearHead(
        jnp.asarray(np.random.default_rng(9).standard_normal((8, 3)), jnp.float32),
        jnp.asarray([0.1, 0.2, 0.3], jnp.float32),
    )
    pooled = jnp.asarray(generator.gamma(2.0, size=(n, 8)), jnp.float32)
    extras = {"sfp": jnp.asarray(generator.gamma(2.0, size=(n, 8)), jnp.float32)}
    return ModelOutputs(None, pooled, head(pooled), extras), head


def fitted(text, settings=None):
    method = parse_method(text, settings or {})
    train, head = draw(50, seed=0)
    state = method.fit(train, np.arange(50) % 3, head)
    identity, names, bank = model_identity(MODEL), ("a", "ß", "c"), np.arange(0, 100, 2)
    return SavedDetector(method, state, 0.25, 0.95, identity, names, bank)


@pytest.mark.parametrize(
    "text",
    [
        "energy",
        "react[percentile=80]+react+knn[k=3]",
        "knn[k=3,dtype=bfloat16]",
        "knn[k=3,memory=host]",
        "knn[k=3,memory=shared]",
        "sfp+nnguide[k=4]",
        "mahalanobis",
        "dice+energy",
    ],
)
def test_loaded_detector_gives_the_same_bits(tmp_path, text):
    detector = fitted(text)
    test, head = draw(20, seed=1)
    save_detector(tmp_path / "d.safetensors", detector)
    loaded = load_detector(tmp_path / "d.safetensors")
    assert loaded.method.steps == detector.method.steps
    assert loaded.method.name == text
    assert [file.name for file in tmp_path.iterdir()] == ["d.safetensors"]
    before, after = (jax.jit(own.method.score)(own.state, test, head) for own in (detector, loaded))
    np.testing.assert_array_equal(before, after)
    for part in ("threshold", "tpr", "model", "classes"):
        assert getattr(loaded, part) == getattr(detector, part)
    np.testing.assert_array_equal(loaded.bank, detector.bank)


def test_bank_goes_back_to_where_the_parameters_say(tmp_path):
    for memory in ("host", "shared"):
        save_detector(tmp_path / "d", fitted(f"knn[k=3,memory={memory}]"))
        rows = load_detector(tmp_path / "d").state[0].rows
        if memory == "host":
            assert isinstance(rows, HostRows)
        else:
            assert len(rows.sharding.device_set) == 8


def test_settings_from_elsewhere_are_spelled_out():
    method = parse_method("knn", {"knn": {"k": "7"}})
    assert spelled_out(method) == "knn[k=7,dtype=float32,memory=device]"


@pytest.mark.parametrize("text", [*DETECTORS, *TRANSFORMS, *VIEWS])
def test_every_name_is_spelled_so_that_it_reads_back(text):
    method = parse_method(text)
    again = parse_method(spelled_out(method))
    assert dataclasses.replace(again, name=text) == method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vit"}, "--model: got name vit, wanted resnet50, as the detector was fitted"),
        ({"weights_hash": "cd34"}, "--weights: got weights_sha256 cd34, wanted ab12"),
        ({"preprocessing": Preprocessing(232, 224)}, "--tag: got preprocessing .*'resize': 232"),
        ({"dtype": "bfloat16"}, "--dtype: got dtype bfloat16, wanted float32"),
    ],
)
def test_another_model_is_refused(tmp_path, change, message):
    save_detector(tmp_path / "d", fitted("energy"))
    loaded = load_detector(tmp_path / "d")
    loaded.require_model(MODEL)
    with pytest.raises(UsageError, match=message):
        loaded.require_model(dataclasses.replace(MODEL, **change))


def test_no_detector_file(tmp_path):
    path = tmp_path / "d"
    with pytest.raises(UsageError, match=r"--detector: got .*d, wanted an existing detector file"):
        load_detector(path)
    path.write_bytes(b"no tensors in here")
    with pytest.raises(UsageError, match="wanted a whole detector file"):
        load_detector(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(UsageError, match="d with no metadata, wanted a file of the format"):
        load_detector(path)
    save_detector(path, fitted("knn[k=3]"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="wanted a whole detector file"):
        load_detector(path)


def test_file_that_lacks_something_is_refused(tmp_path):
    path = tmp_path / "d"
    save_detector(path, fitted("knn[k=3]"))
    arrays, metadata = load_file(path), safe_open(path, framework="numpy").metadata()
    ((form, whole),) = metadata.items()
    for text in ("{", json.dumps({"name": "knn"}), whole):
        kept = {"0.size": arrays["0.size"]} if text == whole else arrays
        save_file(kept, path, {form: text})
        with pytest.raises(UsageError, match="--detector: got .*, wanted a whole detector file"):
            load_detector(path)


def test_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="wanted a file that can be written"):
        save_detector(tmp_path / "folder", fitted("energy"))
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
