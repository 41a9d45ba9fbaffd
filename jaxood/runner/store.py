"""Extracted features on disk: resumable columns, named by what they were computed from.

What the model gives ("outputs"), and what each extractor gives, is stored by itself, in
`<folder>/<set>-<fingerprint>/<column>-<fingerprint>/`, so that a run is served by whatever earlier
runs have left, more or less than it asks for:

    chunks.jsonl  a line a chunk of images: a digest of the line, and what it says, in JSON
    <array>.bin   the rows of all chunks, one after the other

Rows are written before the line that vouches for them. They are mapped when they are used, not
read: no memory is taken that the system cannot take back.
"""

import hashlib
import json
import logging
import mmap
import os
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from jaxood.files import file_name, fingerprint, make_folder, write_whole
from jaxood.runner.columns import Arrays, Chunk, end_of, row_count
from jaxood.runner.features import Skipped

FORMAT = "jaxood features 5"
CHUNKS = "chunks.jsonl"


class Row(NamedTuple):
    """What a row of an array is."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=int))


class StoredColumn:
    """A column on disk; what earlier runs have left of it is there from the start.

    A chunk that is not what was written, or not of this column, ends what is there, and is told of.
    Files stay open, so that a run goes on when somebody removes them.
    """

    def __init__(self, folder: Path, name: str, identity: object):
        self.fingerprint = fingerprint(FORMAT, identity)
        self.folder = folder / f"{file_name(name)}-{self.fingerprint}"
        self.chunks: list[Chunk] = []
        self._lines: list[bytes] = []  # of the chunks
        self._rows: dict[str, Row] = {}  # by array
        self._files: dict[str, BinaryIO] = {}  # by array
        self._journal: BinaryIO | None = None  # once it is written to
        self._load()

    def append(self, chunk: Chunk, arrays: Arrays) -> None:
        if self._journal is None:
            make_folder(self.folder)
            write_whole(self.folder / CHUNKS, b"".join(self._lines))
            self._journal = open(self.folder / CHUNKS, "ab", buffering=0)
        self._rows = {name: Row(str(rows.dtype), rows.shape[1:]) for name, rows in arrays.items()}
        content = {name: _bytes(rows) for name, rows in arrays.items()}
        for name, rows in content.items():
            if name not in self._files:
                (self.folder / f"{name}.bin").touch()
            file = self._opened(name)
            file.seek(row_count(self) * self._rows[name].bytes)
            _write(file, rows)
        about = {
            "column": self.fingerprint,
            "first": chunk.first,
            "end": chunk.end,
            "rows": chunk.rows,
            "skipped": [astuple(image) for image in chunk.skipped],
            "arrays": self._rows,
            "sha256": {name: hashlib.sha256(rows).hexdigest() for name, rows in content.items()},
        }
        text = json.dumps(about).encode() + b"\n"
        line = hashlib.sha256(text).hexdigest().encode() + b" " + text
        _write(self._journal, memoryview(line))
        self.chunks.append(chunk)
        self._lines.append(line)

    def cut(self) -> None:
        self.chunks.pop()
        self._lines.pop()

    def arrays(self) -> Arrays:
        """All rows, mapped from the files and read-only."""
        return self._mapped(0, row_count(self))

    def close(self) -> None:
        for file in (self._journal, *self._files.values()):
            if file is not None:
                file.close()

    def _load(self) -> None:
        path = self.folder / CHUNKS
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                chunk = self._parsed(line)
            except (OSError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError):
                chunk = None
            if chunk is None:
                told = "%s is damaged from image %d on: computed again"
                logging.getLogger("jaxood").warning(told, self.folder, end_of(self))
                break
            self.chunks.append(chunk)
            self._lines.append(line)

    def _parsed(self, line: bytes) -> Chunk | None:
        """The chunk of a line, if it comes next in this column and its rows are what they were."""
        digest, _, text = line.partition(b" ")
        if digest != hashlib.sha256(text).hexdigest().encode():
            return None
        about = json.loads(text)
        if (about["column"], about["first"]) != (self.fingerprint, end_of(self)):
            return None
        skipped = tuple(Skipped(*values) for values in about["skipped"])
        chunk = Chunk(about["first"], about["end"], about["rows"], skipped)
        rows = about["arrays"].items()
        self._rows = {name: Row(kind, tuple(shape)) for name, (kind, shape) in rows}
        fits = 0 <= chunk.rows <= chunk.end - chunk.first
        if not fits or not all(map(str.isidentifier, self._rows)):
            return None
        arrays = self._mapped(row_count(self), chunk.rows)
        found = {name: hashlib.sha256(_bytes(rows)).hexdigest() for name, rows in arrays.items()}
        return chunk if found == about["sha256"] else None

    def _mapped(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Rows of every array.

        Raises:
          OSError, ValueError: when a file cannot be read, or has less.
        """
        found = {}
        for name, row in self._rows.items():
            values = np.empty(0, row.dtype)
            if count * row.bytes:
                whole = mmap.mmap(self._opened(name).fileno(), 0, access=mmap.ACCESS_READ)
                size = count * row.bytes // values.itemsize
                values = np.frombuffer(whole, row.dtype, size, first * row.bytes)
            found[name] = values.reshape(count, *row.shape)
        return found

    def _opened(self, name: str) -> BinaryIO:
        if name not in self._files:
            path = self.folder / f"{name}.bin"
            mode = "r+b" if os.access(path, os.W_OK) else "rb"
            self._files[name] = cast(BinaryIO, open(path, mode, buffering=0))
        return self._files[name]


def _bytes(rows: np.ndarray) -> memoryview:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


def _write(file: BinaryIO, content: memoryview) -> None:
    """All of it: one call may take a part only."""
    while content:
        content = content[file.write(content) :]
