"""Extracted features on disk: chunks of rows, resumable, named by what they were computed from."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Features(NamedTuple):
    """What one pass keeps of a data set, on the host; undecodable images are left out.

    Attributes:
      indices: place in the data set of each row.
      skipped: reason by id of the images that were left out.
    """

    pooled: Float[np.ndarray, "n c"]
    logits: Float[np.ndarray, "n k"]
    extras: dict[str, Float[np.ndarray, "n d"]]
    indices: Int[np.ndarray, " n"]
    skipped: dict[str, str]

    def __len__(self):
        return len(self.indices)


def joined(chunks: Iterable[Features]) -> Features:
    """One after the other."""
    chunks = list(chunks)
    return Features(
        np.concatenate([chunk.pooled for chunk in chunks]),
        np.concatenate([chunk.logits for chunk in chunks]),
        {
            name: np.concatenate([chunk.extras[name] for chunk in chunks])
            for name in chunks[0].extras
        },
        np.concatenate([chunk.indices for chunk in chunks]),
        {own: reason for chunk in chunks for own, reason in chunk.skipped.items()},
    )


def fingerprint(*parts: object) -> str:
    """A short hash of values that have a faithful `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when all went well.

    A reader, or a next run, sees the whole file or none of it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(content)


class FeatureStore:
    """Chunks of one pass in one folder, `<folder>/<name>-<fingerprint>/<first image>.safetensors`.

    A chunk holds the images from `first` up to the next chunk's; `end` tells where its own end.
    """

    def __init__(self, folder: Path, name: str, own_fingerprint: str):
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        self.folder = folder / f"{safe}-{own_fingerprint}"

    def load(self) -> tuple[list[Features], int]:
        """The chunks that are there, and the image at which to go on."""
        from safetensors import SafetensorError, safe_open

        chunks, first = [], 0
        while (path := self._path(first)).exists():
            try:
                with safe_open(path, framework="numpy") as file:
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    metadata = file.metadata()
            except (SafetensorError, OSError):
                break
            chunks.append(_from_arrays(arrays, json.loads(metadata["skipped"])))
            first = int(metadata["end"])
        return chunks, first

    def save(self, chunk: Features, first: int, end: int) -> None:
        """Writes the images from `first` up to `end`."""
        from safetensors.numpy import save

        arrays = {"pooled": chunk.pooled, "logits": chunk.logits, "indices": chunk.indices}
        arrays |= {f"extras/{name}": value for name, value in chunk.extras.items()}
        arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        metadata = {"end": str(end), "skipped": json.dumps(chunk.skipped)}
        write_whole(self._path(first), save(arrays, metadata))

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:09d}.safetensors"


def _from_arrays(arrays: dict[str, np.ndarray], skipped: dict[str, str]) -> Features:
    extras = {
        name.removeprefix("extras/"): value
        for name, value in arrays.items()
        if name.startswith("extras/")
    }
    return Features(arrays["pooled"], arrays["logits"], extras, arrays["indices"], skipped)
