"""Reading PyTorch checkpoints: tensors only, nothing that runs code, one array in memory."""

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.errors import UsageError

# Where training scripts put the weights, the averaged ones first: those are what is published.
NESTED = (
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "weights",
)
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")  # data parallel, torch.compile
PREFIXES = ("model.", "backbone.", "network.", "net.")  # stripped where every key has it


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by their torch names, read when asked for.

    Attributes:
      shapes: by name.
      get: reads one array, in a NumPy floating or integer type.
      notes: what a reader of the report should know.
    """

    shapes: Mapping[str, tuple[int, ...]]
    get: Callable[[str], np.ndarray]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens `.safetensors`, or what `torch.save` wrote.

    Raises:
      UsageError: no such file, truncated, another kind of file, or a pickle that asks for
        more than tensors and plain containers.
    """
    if not path.is_file():
        raise UsageError("checkpoint", path, "an existing file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return from_tensors(_load_torch(path))


def from_tensors(tensors: Any) -> Checkpoint:
    """A checkpoint from what a file held: tensors or arrays by name, plain or nested."""
    tensors, notes = _unnest(tensors)
    names = strip_prefixes(tensors)
    shapes = {name: tuple(tensors[key].shape) for name, key in names.items()}
    return _joined(Checkpoint(shapes, lambda name: _as_numpy(tensors[names[name]]), notes))


def strip_prefixes(keys: Mapping[str, object]) -> dict[str, str]:
    """Names without what wrappers add, each with its own key."""
    names = {WRAPPERS.sub("", key): key for key in keys}
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names if "." in name):
            names = {name.removeprefix(prefix): key for name, key in names.items()}
    return names


def _as_numpy(tensor) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach()
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:
        tensor = tensor.float()  # NumPy has no bfloat16
    return tensor.numpy()


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _unnest(content: object) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The mapping that holds the arrays, and which one it was where there was a choice."""
    notes: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        inside = [key for key in NESTED if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        others = f", not {', '.join(inside[1:])}" if inside[1:] else ""
        notes += (f"read from '{inside[0]}'{others}",)
        content = content[inside[0]]
    arrays = {}
    if isinstance(content, Mapping):
        arrays = {key: value for key, value in content.items() if _is_array(value)}
    if not arrays:
        kind = type(content).__name__
        if isinstance(content, Mapping):
            kind += f" with keys {', '.join(map(str, list(content)[:5]))}"
        raise UsageError("checkpoint", kind, "a state dict: tensors by name, plain or nested")
    return arrays, notes


def _read_safetensors(path: Path) -> Checkpoint:
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        wanted = f"a whole safetensors file ({error})"
        raise UsageError("checkpoint", path, wanted, "Download it again.") from error
    names = strip_prefixes(dict.fromkeys(file.keys()))
    shapes = {name: tuple(file.get_slice(key).get_shape()) for name, key in names.items()}
    return _joined(Checkpoint(shapes, lambda name: file.get_tensor(names[name])))


def _joined(apart: Checkpoint) -> Checkpoint:
    """Query, key and value, which transformers keeps apart, as one: `self_attn.qkv_proj.weight`."""
    shapes, parts = dict(apart.shapes), {}
    for name in apart.shapes:
        module, query, param = name.rpartition(".q_proj.")
        three = [f"{module}.{part}_proj.{param}" for part in "qkv"]
        if query and len({shapes.get(part) for part in three}) == 1:
            first, *rest = shapes[name]
            for part in three:
                del shapes[part]
            whole = f"{module}.qkv_proj.{param}"
            shapes[whole], parts[whole] = (3 * first, *rest), three

    def get(name: str) -> np.ndarray:
        found = [apart.get(part) for part in parts.get(name, [name])]
        return found[0] if len(found) == 1 else np.concatenate(found)

    return replace(apart, shapes=shapes, get=get)


def _is_program(path: Path) -> bool:
    """Whether `torch.jit.save` wrote it, as the files that OpenAI published."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _load_torch(path: Path) -> object:
    try:
        import torch
    except ImportError as error:
        remedy = "Install it: pip install 'jaxood[convert]'"
        raise UsageError("checkpoint", path, "PyTorch to read it with", remedy) from error
    if _is_program(path):
        keep = f"torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), 'weights.pth')"
        got, remedy = f"{path}, a TorchScript program", f"Keep its weights alone: {keep}"
        raise UsageError("checkpoint", got, "tensors by name: programs are not read", remedy)
    try:
        # Namespace: the options that training scripts save beside the weights; plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=zipfile.is_zipfile(path),  # files of before 2020 cannot be mapped
            )
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        asked = re.search(
            r"(?:GLOBAL|Unsupported global:?|function:?) ([\w.]+\.[\w.]+)", str(error)
        )
        if asked and "weights_only" in str(error):
            raise UsageError(
                "checkpoint",
                f"{path}, whose pickle asks for {asked[1]}",
                "tensors in plain containers: nothing that could run code",
                "Save the state dict alone: torch.save(model.state_dict(), FILE)",
            ) from error
        raise UsageError(
            "checkpoint",
            path,
            "a whole PyTorch checkpoint or .safetensors file",
            "It is truncated, or torch.save did not write it.",
        ) from error
