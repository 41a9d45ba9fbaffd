"""Extracted features on disk: chunks of rows, resumable, named by what they were computed from.

A pass gives columns: what the model gives ("outputs"), and what each extractor gives. Each is
stored by itself, `<folder>/<set>-<fingerprint>/<column>-<fingerprint>/<first image>.safetensors`,
so that a run is served by whatever earlier runs have left, more or less than it asks for.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxood.files import file_name, fingerprint, write_whole
from jaxood.runner.features import Skipped

FORMAT = "jaxood features 3"


class Chunk(NamedTuple):
    """The images of a set from `first` up to `end`; undecodable ones have no row.

    Attributes:
      arrays: by name, a row an image; "indices" of the rows in the set among them.
    """

    first: int
    end: int
    arrays: Mapping[str, np.ndarray]
    skipped: tuple[Skipped, ...]


class Column:
    """The chunks of one column.

    A chunk whose content is not what was written, or not of this column, ends what is there, and
    is told of.
    """

    def __init__(self, folder: Path, name: str, identity: object):
        self.fingerprint = fingerprint(FORMAT, identity)
        self.folder = folder / f"{file_name(name)}-{self.fingerprint}"

    def load(self) -> list[Chunk]:
        """The chunks that are there, from the first image on, without a gap."""
        chunks: list[Chunk] = []
        end = 0
        while (chunk := self._read(end)) is not None:
            chunks.append(chunk)
            end = chunk.end
        return chunks

    def save(self, chunk: Chunk) -> None:
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(array) for name, array in chunk.arrays.items()}
        metadata = {
            "format": FORMAT,
            "column": self.fingerprint,
            "first": str(chunk.first),
            "end": str(chunk.end),
            "skipped": json.dumps([astuple(image) for image in chunk.skipped]),
        }
        metadata["sha256"] = _digest(arrays, metadata)
        write_whole(self._path(chunk.first), save(arrays, metadata))

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:09d}.safetensors"

    def _read(self, first: int) -> Chunk | None:
        path = self._path(first)
        if not path.exists():
            return None
        chunk = self._parsed(path, first)
        if chunk is None:
            logging.getLogger("jaxood").warning("%s is damaged: computed again", path)
        return chunk

    def _parsed(self, path: Path, first: int) -> Chunk | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = dict(file.metadata() or {})
            digest = metadata.pop("sha256")
            written = metadata["column"], metadata["first"]
            if digest != _digest(arrays, metadata) or written != (self.fingerprint, str(first)):
                return None
            skipped = tuple(Skipped(*values) for values in json.loads(metadata["skipped"]))
            end = int(metadata["end"])
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            return None
        return Chunk(first, end, arrays, skipped) if end > first else None


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()
