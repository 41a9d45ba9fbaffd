"""Weights files: safetensors of float32 arrays by parameter path, with what a run must know.

A file is written beside its final name and renamed when it is whole, and one array at a time, so
that a network of any size needs the memory of its largest array only.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxood.errors import UsageError
from jaxood.files import whole_file
from jaxood.preprocessing import Preprocessing

CONVERT = "Make one from a PyTorch checkpoint with jaxood convert"


@dataclass(frozen=True)
class WeightsInfo:
    """The metadata of a weights file.

    Attributes:
      class_names: one a class; empty where they are ImageNet's or not known.
      source_sha256: hash of the checkpoint it was converted from; empty where there is none.
      converter: package version that wrote the file.
    """

    architecture: str
    tag: str
    preprocessing: Preprocessing
    num_classes: int
    class_names: tuple[str, ...] = ()
    layout: str = ""
    source_sha256: str = ""
    converter: str = ""

    def as_strings(self) -> dict[str, str]:
        values = {name: str(value) for name, value in asdict(self).items()}
        return values | {
            "preprocessing": json.dumps(self.preprocessing.as_dict()),
            "class_names": json.dumps(self.class_names),
        }

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "WeightsInfo":
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known.setdefault("class_names", "[]")
        parsed = {
            "preprocessing": Preprocessing.from_dict(json.loads(known["preprocessing"])),
            "class_names": tuple(map(str, json.loads(known["class_names"]))),
            "num_classes": int(known["num_classes"]),
        }
        return cls(**(known | parsed))  # type: ignore[arg-type]  # each of its field's type


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_weights(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    value: Callable[[str], np.ndarray],
    info: WeightsInfo,
) -> None:
    """Writes the arrays `value(name)`, float32, one after the other; all of the file or nothing.

    Raises:
      UsageError: the folder is missing or cannot be written.
    """
    header: dict[str, dict] = {"__metadata__": info.as_strings()}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of eight bytes
    try:
        with whole_file(path) as partial, partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape in shapes.items():
                array = np.ascontiguousarray(value(name), "<f4")
                if array.shape != tuple(shape):
                    raise ValueError(f"{name}: got shape {array.shape}, announced {shape}")
                file.write(array.data)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError("output", f"{path} ({reason})", "a file that can be written") from error


def open_weights(path: Path):
    """Opens a weights file and reads its metadata.

    Returns:
      `(file, info)`: `file.keys()`, `file.get_tensor(name)`.

    Raises:
      UsageError: missing, truncated, not safetensors, or not one of this package's files.
    """
    if not path.is_file():
        raise UsageError("weights", path, "an existing weights file", CONVERT)
    try:
        file = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        wanted = f"a whole safetensors file ({error})"
        raise UsageError("weights", path, wanted, CONVERT) from error
    try:
        info = WeightsInfo.from_strings(file.metadata() or {})
    except (KeyError, ValueError, TypeError) as error:
        wanted = "a weights file with this package's metadata"
        raise UsageError("weights", path, wanted, CONVERT) from error
    return file, info
