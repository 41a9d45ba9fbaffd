"""Weights files: safetensors of float32 arrays by parameter path, with what a run must know.

A file is written beside its final name and renamed when it is whole, and one array at a time, so
that a network of any size needs the memory of its largest array only. Its metadata holds a digest
of the file itself, with zeros in the digest's place: a changed byte is noticed.
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
NO_DIGEST = b"0" * 64  # in the digest's place while it is computed
BLOCK = 1 << 22  # bytes read at once


@dataclass(frozen=True)
class WeightsInfo:
    """The metadata of a weights file.

    Attributes:
      num_classes: 0 of a backbone without a head.
      class_names: one a class; empty where they are ImageNet's or not known.
      source_sha256: hash of the checkpoint it was converted from; empty where there is none.
      converter: package version that wrote the file.
      fetched_from: the checkpoint on the hub, with its commit; empty where it was a local file.
      head: "linear" where the architecture's own is another kind; else empty.
      negatives: columns of a cosine head that are no classes.
      head_from: what a head that was not in the checkpoint was made of.
    """

    architecture: str
    tag: str
    preprocessing: Preprocessing
    num_classes: int
    class_names: tuple[str, ...] = ()
    layout: str = ""
    source_sha256: str = ""
    converter: str = ""
    fetched_from: str = ""
    head: str = ""
    negatives: int = 0
    head_from: str = ""

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
            "negatives": int(known.get("negatives", "0")),
        }
        return cls(**(known | parsed))  # type: ignore[arg-type]  # each of its field's type


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_sha256(path: Path) -> str:
    """The hash of a weights file that is as it was written.

    Raises:
      UsageError: when it is not, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = file.read(8)
            header = file.read(struct.unpack("<Q", length)[0])
            written = json.loads(header)["__metadata__"]["sha256"].encode()
            whole = hashlib.sha256(length + header)
            blank = hashlib.sha256(length + header.replace(written, NO_DIGEST, 1))
            while block := file.read(BLOCK):
                whole.update(block)
                blank.update(block)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        got = f"{path} ({type(error).__name__})"
        raise UsageError("weights", got, "a weights file of this version", CONVERT) from error
    if blank.hexdigest().encode() != written:
        raise UsageError(
            "weights", f"{path}, changed after it was written", "a whole file", CONVERT
        )
    return whole.hexdigest()


def is_whole(path: Path) -> bool:
    """Whether it is a weights file that is as it was written."""
    try:
        open_weights(path)
        checked_sha256(path)
    except UsageError:
        return False
    return True


def write_weights(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    value: Callable[[str], np.ndarray],
    info: WeightsInfo,
) -> None:
    """Writes the arrays `value(name)`, float32, one after the other; all of the file or nothing.

    Raises:
      OSError: when the file cannot be written.
    """
    header: dict[str, dict] = {"__metadata__": info.as_strings() | {"sha256": NO_DIGEST.decode()}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of eight bytes
    with whole_file(path) as partial, partial.open("wb") as file:
        head = struct.pack("<Q", len(text)) + text
        digest = hashlib.sha256(head)
        file.write(head)
        for name, shape in shapes.items():
            array = np.asarray(value(name), "<f4", order="C")
            if array.shape != tuple(shape):
                raise ValueError(f"{name}: got shape {array.shape}, announced {shape}")
            file.write(array.data)
            digest.update(array.data)
        file.seek(head.index(NO_DIGEST))
        file.write(digest.hexdigest().encode())


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
