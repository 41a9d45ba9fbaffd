"""Reading checkpoints: every container, nothing executed, one line for what is wrong."""

import argparse
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
from references import mobilenet_checkpoint

from jaxood.conversion.checkpoint import from_tensors, read_checkpoint
from jaxood.errors import UsageError

torch = pytest.importorskip("torch")

TENSORS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def check(checkpoint):
    assert dict(checkpoint.shapes) == {"conv1.weight": (2, 3), "fc.bias": (2,)}
    np.testing.assert_array_equal(checkpoint.get("conv1.weight"), [[0, 1, 2], [3, 4, 5]])
    assert checkpoint.get("conv1.weight").dtype == np.float32


def prefixed(prefix):
    return {prefix + key: value for key, value in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": prefixed("module.")},
        {"model_state_dict": prefixed("_orig_mod.module.")},
        {"state_dict": prefixed("model."), "optimizer": {"state": {}}},
        {"model": {"state_dict": TENSORS}, "args": argparse.Namespace(lr=0.1)},
    ],
    ids=["plain", "state_dict", "module", "compiled", "lightning", "namespace"],
)
def test_nested_and_prefixed(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    check(read_checkpoint(path))


def test_the_averaged_weights_are_taken_and_named(tmp_path):
    path = tmp_path / "checkpoint.pth"
    other = {key: value + 1 for key, value in TENSORS.items()}
    average = prefixed("module.") | {"n_averaged": torch.tensor(5)}
    torch.save({"model": other, "model_ema": average}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.notes == ("read from 'model_ema', not model",)
    np.testing.assert_array_equal(checkpoint.get("fc.bias"), [1, 1])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torch_formats_and_types(tmp_path, zipped, dtype):
    path = tmp_path / "checkpoint.bin"
    half = {key: value.to(dtype) for key, value in TENSORS.items()}
    torch.save(half, path, _use_new_zipfile_serialization=zipped)
    check(read_checkpoint(path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({key: value.to(dtype) for key, value in TENSORS.items()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.shapes == {"conv1.weight": (2, 3), "fc.bias": (2,)}
    np.testing.assert_array_equal(checkpoint.get("fc.bias").astype(np.float32), [1, 1])


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": TENSORS, "extra": Malicious()}
    if how == "pickle":
        (tmp_path / "bad.pth").write_bytes(pickle.dumps({"extra": Malicious()}, protocol=2))
    else:
        torch.save(content, "bad.pth", _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UsageError, match=r"bad\.pth.*(posix|nt)\.mkdir.*could run code") as caught:
        read_checkpoint(tmp_path / "bad.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def damaged(kind):
    whole = mobilenet_checkpoint().read_bytes()
    return {
        "legacy": whole[: len(whole) // 2],
        "legacy, early": whole[:2000],
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "html": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "empty": b"",
        "image": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    }[kind]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["legacy", "legacy, early", "text", "html", "empty", "image"])
def test_damaged_and_foreign_files(tmp_path, kind, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(damaged(kind))
    with pytest.raises(UsageError, match=r"^checkpoint: got .*bad.*, wanted a whole") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_truncated_zip_and_safetensors(tmp_path):
    torch.save({"weight": torch.zeros(10_000)}, tmp_path / "a.pth")
    safetensors.torch.save_file({"weight": torch.zeros(10_000)}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:20_000])
        with pytest.raises(UsageError, match="wanted a whole"):
            read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2)])
def test_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="wanted a state dict"):
        read_checkpoint(tmp_path / "a.pth")


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="wanted an existing file"):
        read_checkpoint(tmp_path / "none.pth")


def test_a_prefix_that_only_some_keys_have_stays():
    mixed = {"backbone.conv.weight": np.zeros(1), "fc.weight": np.zeros(1)}
    assert set(from_tensors(mixed).shapes) == set(mixed)
