"""What a run's manifest says, and JSON as whole files."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from jaxood.data.images import Arrays
from jaxood.models.registry import LoadedModel
from jaxood.preprocessing import Preprocessing
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.runner.features import Skipped


@pytest.fixture
def model():
    return LoadedModel(nnx.Module(), Preprocessing(9, 8), "tiny", "tag", "abc")


def test_what_was_skipped_comes_from_the_result(model):
    images = Arrays(np.zeros((3, 8, 8, 3), np.uint8), None, "known")
    skipped = (Skipped(1, "known/1", "truncated"), Skipped(0, "known/0", "empty"))
    arguments = {"seed": 0, "images": Path("a")}
    data = {"id/known": (images, skipped), "ood/known": (images, ())}
    about = manifest(arguments, model, data, accuracy=None, bank=np.arange(2))
    assert about["arguments"] == {"seed": 0, "images": "a"}
    assert about["data"] == {
        "id/known": {
            "images": 3,
            "fingerprint": images.fingerprint(),
            "skipped": {"known/0": "empty", "known/1": "truncated"},
        },
        "ood/known": {"images": 3, "fingerprint": images.fingerprint(), "skipped": {}},
    }
    assert list(about["data"]["id/known"]["skipped"]) == ["known/0", "known/1"]
    assert about["model"]["name"] == "tiny" and about["model"]["weights_sha256"] == "abc"
    assert about["model"]["preprocessing"]["resize"] == 9
    assert about["model"]["matmul_precision"] == "default"
    with jax.default_matmul_precision("bfloat16"):
        precision = manifest({}, model, {})["model"]["matmul_precision"]
    assert precision == "bfloat16"
    assert about["versions"]["jax"] == jax.__version__
    assert about["device"]["count"] == jax.local_device_count()
    assert (about["accuracy"], about["bank"]) == (None, [0, 1])


@pytest.mark.parametrize("content", [b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b"{}"])
def test_a_result_beside_a_damaged_manifest_is_kept(tmp_path, content, caplog):
    (tmp_path / "manifest.json").write_bytes(content)
    (tmp_path / "metrics.csv").write_text("numbers")
    (tmp_path / "roc.svg").write_text("the same picture in another format")
    put_aside(tmp_path, ("metrics.csv", "roc.png", "manifest.json"), {"seed": 0})
    assert caplog.messages == [f"the result of another run was moved to {tmp_path / 'earlier-1'}"]
    assert (tmp_path / "earlier-1" / "metrics.csv").read_text() == "numbers"
    assert (tmp_path / "earlier-1" / "manifest.json").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["earlier-1"]


def test_json_is_plain_and_whole(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {1: (np.float32(0.5), Path("x")), "list": [np.arange(2), None, {"y": "ä"}]})
    assert json.loads(path.read_text()) == {
        "1": [0.5, "x"],
        "list": [[0, 1], None, {"y": "ä"}],
    }
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"no": object()})
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
