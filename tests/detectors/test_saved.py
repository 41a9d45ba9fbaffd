"""Detector files: the same scores bit for bit, the right model only, no half-written file."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import flipped
from jaxtyping import Array, Float
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxood.context import Attribution
from jaxood.detectors import saved
from jaxood.detectors.contract import Detector
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.method import Method
from jaxood.detectors.neighbours import HostRows
from jaxood.detectors.saved import SavedDetector, load_detector, save_detector
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.outputs import model_outputs

MODEL = {
    "name": "resnet50",
    "weights_sha256": "ab12",
    "preprocessing": {"resize": 256, "crop": 224},
    "dtype": "float32",
}


@dataclass(frozen=True)
class Largest(Detector):
    reads: ClassVar[tuple] = ("logits",)

    def score(self, state, outputs, head):
        return outputs.logits.max(axis=1)


@dataclass(frozen=True)
class FirstChannel(Attribution):
    def __call__(self, context) -> Float[Array, "n h w"]:
        return context.feature_map[..., 0]


def draw(n, seed):
    generator = np.random.default_rng(seed)
    head = LinearHead(
        jnp.asarray(np.random.default_rng(9).standard_normal((8, 3)), jnp.float32),
        jnp.asarray([0.1, 0.2, 0.3], jnp.float32),
    )
    pooled = jnp.asarray(generator.gamma(2.0, size=(n, 8)), jnp.float32)
    extras = {"sfp": jnp.asarray(generator.gamma(2.0, size=(n, 8)), jnp.float32)}
    return model_outputs(head, pooled, extras=extras), head


def fitted(text):
    method = parse_method(text)
    train, head = draw(50, seed=0)
    state = method.fit_state(train, np.arange(50) % 3, head)
    names, bank = ("a", "ß", "c"), np.arange(0, 100, 2)
    return SavedDetector(method, state, 0.25, 0.95, MODEL, names, bank)


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
        "dice+energy[temperature=1e+16]",
    ],
)
def test_loaded_detector_gives_the_same_bits(tmp_path, text):
    detector = fitted(text)
    test, head = draw(20, seed=1)
    save_detector(tmp_path / "d.safetensors", detector)
    loaded = load_detector(tmp_path / "d.safetensors")
    assert loaded.method == detector.method
    assert [file.name for file in tmp_path.iterdir()] == ["d.safetensors"]
    before, after = (jax.jit(one.method.score)(one.state, test, head) for one in (detector, loaded))
    np.testing.assert_array_equal(before, after)
    for part in ("threshold", "tpr", "model", "classes"):
        assert getattr(loaded, part) == getattr(detector, part)
    np.testing.assert_array_equal(loaded.bank, detector.bank)


@pytest.mark.cpu
def test_bank_goes_back_to_where_the_parameters_say(tmp_path):
    for memory in ("host", "shared"):
        save_detector(tmp_path / "d", fitted(f"knn[k=3,memory={memory}]"))
        rows = load_detector(tmp_path / "d").state[0].rows
        if memory == "host":
            assert isinstance(rows, HostRows)
        else:
            assert len(rows.sharding.device_set) == 8


def test_every_parameter_is_written(tmp_path):
    save_detector(tmp_path / "d", fitted("knn[k=7]"))
    with safe_open(tmp_path / "d", framework="numpy") as file:
        values = json.loads(file.metadata()["jaxood detector 2"])
    assert values["method"] == "knn[k=7,dtype=float32,memory=device,features=penultimate]"


def test_parts_of_the_users_own_are_given_never_imported(tmp_path, monkeypatch):
    path, name = tmp_path / "d", f"{__name__}:Largest"
    save_detector(path, fitted(f"react+{name}"))
    monkeypatch.setattr("jaxood.detectors.grammar.imported", None)
    line = f"parts: got no {name}, wanted names of ours, or classes that are given. Give the class"
    with pytest.raises(UsageError, match=line):
        load_detector(path)
    assert load_detector(path, [Largest]).method.detector == Largest()


def test_an_attribution_of_the_users_own_is_given_as_well(tmp_path):
    path, method = tmp_path / "d", parse_method(f"sfp[by={__name__}:FirstChannel]+msp")
    save_detector(path, SavedDetector(method, ((),), 0.25, 0.95, MODEL))
    with pytest.raises(UsageError, match=f"parts: got no {__name__}:FirstChannel, wanted names"):
        load_detector(path)
    loaded = load_detector(path, [FirstChannel])
    assert loaded.method.view.attribution == FirstChannel()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vit"}, "model: got name vit, wanted resnet50, as the detector was fitted"),
        ({"weights_sha256": "cd34"}, "weights: got weights_sha256 cd34, wanted ab12"),
        ({"preprocessing": {"resize": 232}}, "tag: got preprocessing .*'resize': 232"),
        ({"dtype": "bfloat16"}, "dtype: got dtype bfloat16, wanted float32"),
    ],
)
def test_another_model_is_refused(tmp_path, change, message):
    save_detector(tmp_path / "d", fitted("energy"))
    loaded = load_detector(tmp_path / "d")
    loaded.require_model(MODEL)
    with pytest.raises(UsageError, match=f"^{message}"):
        loaded.require_model({**MODEL, **change})


def test_no_detector_file(tmp_path):
    path = tmp_path / "d"
    with pytest.raises(UsageError, match=r"^detector: got .*d, wanted an existing detector file"):
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


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"method": "knn"}), "[" * 100_000])
def test_damaged_metadata_is_refused(tmp_path, text):
    path = tmp_path / "d"
    save_detector(path, fitted("knn[k=3]"))
    save_file(load_file(path), path, {"jaxood detector 2": text})
    with pytest.raises(UsageError, match="^detector: got .*, wanted a whole detector file"):
        load_detector(path)


def rewritten(path, detector, change_values=None, change_arrays=None):
    """The file with other content, and the digest that belongs to that."""
    save_detector(path, detector)
    arrays, metadata = load_file(path), safe_open(path, framework="numpy").metadata()
    ((form, whole),) = metadata.items()
    values = json.loads(whole)
    del values["digest"]
    values |= change_values or {}
    arrays |= change_arrays or {}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    values["digest"] = saved._digest(arrays, values)
    save_file(arrays, path, {form: json.dumps(values)})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"threshold": float("nan")}, "with threshold nan, wanted threshold: a finite number"),
        ({"threshold": float("-inf")}, "with threshold -inf, wanted threshold: a finite number"),
        ({"threshold": "x"}, "with threshold 'x', wanted threshold: a finite number"),
        ({"tpr": 0.0}, "with tpr 0.0, wanted tpr: above 0 and at most 1"),
        ({"tpr": 1.5}, "with tpr 1.5, wanted tpr: above 0 and at most 1"),
        ({"model": {}}, r"with model \{\}, wanted model: values for name, weights_sha256"),
        ({"classes": "abc"}, "with classes 'abc', wanted classes: names"),
        ({"method": 5}, "with method 5, wanted method: text"),
        ({"method": "knn[k=51]"}, "knn.k: got 51, wanted 1 to 50, the rows of the bank"),
        ({"method": "knn[k=0]"}, "knn.k: got 0, wanted 1 to 50, the rows of the bank"),
        ({"method": "no_such_module:Mine"}, "parts: got no no_such_module:Mine, wanted names"),
        ({"method": "sfp[by=os:system]+knn"}, "parts: got no os:system, wanted names of ours"),
        ({"method": "vim"}, "with no origin of vim, wanted a whole detector file"),
        ({"method": "energy"}, r"with \['0.rows', '0.size'\], wanted no such arrays"),
    ],
)
def test_values_are_validated(tmp_path, values, line):
    rewritten(tmp_path / "d", fitted("knn[k=3]"), values)
    with pytest.raises(UsageError, match=line):
        load_detector(tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "arrays", "line"),
    [
        ("knn[k=3]", {"0.size": None}, "with no size of knn, wanted a whole detector file"),
        ("knn[k=3]", {"0.size": np.asarray(99, np.int32)}, "knn.k: got 3, wanted 1 to 50"),
        ("mahalanobis", {"0.shift": np.full(8, np.nan, np.float32)}, "not finite in shift of maha"),
        (
            "mahalanobis",
            {"0.shift": np.zeros(7, np.float32)},
            r"with scale of shape \(8,\) of maha",
        ),
        (
            "mahalanobis",
            {"0.means": np.zeros(8, np.float32)},
            r"with means of shape \(8,\) of maha",
        ),
        ("mahalanobis", {"0.shift": np.zeros(8)}, "with float64 values as shift of mahalanobis"),
        ("energy", {"bank": np.asarray([-1, 4])}, "with a damaged bank, wanted indices of images"),
    ],
)
def test_arrays_are_validated(tmp_path, text, arrays, line):
    rewritten(tmp_path / "d", fitted(text), change_arrays=arrays)
    with pytest.raises(UsageError, match=line):
        load_detector(tmp_path / "d")


def test_a_byte_that_changed_is_told(tmp_path):
    path = tmp_path / "d"
    save_detector(path, fitted("knn[k=3]"))
    content = path.read_bytes()
    changed = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    path.write_bytes(changed)
    with pytest.raises(UsageError, match="changed after it was written, wanted a whole file"):
        load_detector(path)
    generator = np.random.default_rng(0)
    for changed in flipped(content, generator.integers(0, len(content), 200), generator):
        path.write_bytes(changed)
        with pytest.raises(UsageError) as caught:
            load_detector(path)
        assert "\n" not in str(caught.value)


def test_method_that_cannot_be_written_as_text(tmp_path):
    @dataclass(frozen=True)
    class Local(Largest):
        weights: tuple = (1.0, 2.0)

    detector = dataclasses.replace(fitted("energy"), method=Method(Local()))
    with pytest.raises(
        UsageError, match="detector: got method .*Local.* parameters can be written"
    ):
        save_detector(tmp_path / "d", detector)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        save_detector(tmp_path / "folder", fitted("energy"))
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
