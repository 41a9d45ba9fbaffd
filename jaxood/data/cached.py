"""Images as a model takes them, kept on a disk: a run that follows decodes nothing.

`<folder>/<key>/<first image>.images` has CHUNK images, or what is left at the end of a set:
a line with a digest of all that follows; a line of JSON with what the file holds, and why images
of it could not be decoded; the pixels. A file is whole or absent. One whose content is not what
was written is told of, and made again.
"""

import hashlib
import json
import logging
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxood.data.images import Arrays, Batch, ImageSet, Pictures, padded
from jaxood.data.relabelled import as_read
from jaxood.errors import UsageError
from jaxood.files import fingerprint, make_folder, printable, whole_file
from jaxood.preprocessing import Preprocessing
from jaxood.room import free_disk

FORMAT = "jaxood images 1"
CHUNK = 256  # images a file: 38 MB at 224 x 224


def cached_batches(
    images: ImageSet,
    folder: Path | str,
    preprocessing: Preprocessing,
    batch_size: int,
    start: int = 0,
) -> Generator[Batch, None, None]:
    """`images.batches(preprocessing, batch_size, start)`, from `folder` as far as they are there.

    What is not there is decoded, and kept. Images in memory are not kept.
    """
    if not _is_decoded(images):
        yield from images.batches(preprocessing, batch_size, start)
        return
    kept = _Kept.of(images, folder, preprocessing)
    first = start
    with closing(kept.read_from(start, batch_size)) as stored:
        for chunk in stored:
            yield padded(chunk.images, chunk.reasons, first, batch_size)
            first += batch_size
    if first < len(images):
        writer = _Writer(kept)
        with closing(images.batches(preprocessing, batch_size, first)) as decoded:
            for batch in decoded:
                writer.add(batch)
                yield batch


def require_space(
    sets: Iterable[ImageSet | None],
    folder: Path | str | None,
    preprocessing: Preprocessing,
    argument: str = "cache_images",
) -> None:
    """Tells how much of a disk `cached_batches` is going to take for these sets.

    Args:
      folder: None, where nothing is kept.
      argument: the parameter that an error names.

    Raises:
      UsageError: when the disk has not so much.
    """
    if folder is None:
        return
    files = [images for images in sets if images is not None and _is_decoded(images)]
    needed = sum(_Kept.of(images, folder, preprocessing).lacking_bytes() for images in files)
    if not needed:
        return
    free = free_disk(Path(folder))
    disk, size = f"{printable(folder)}, with {_size(free)} free", _size(needed)
    if needed > free:
        raise UsageError(argument, disk, f"a folder on a disk with {size} for the images")
    logging.getLogger("jaxood").warning("%s of images will be kept in %s", size, disk)


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _is_decoded(images: ImageSet) -> bool:
    return not isinstance(as_read(images), Arrays | Pictures)


class _Chunk(NamedTuple):
    """Images, and of each why it could not be decoded: "" if it was."""

    images: UInt8[np.ndarray, "n h w 3"]
    reasons: list[str]


@dataclass(frozen=True)
class _Kept:
    """The files of a set.

    Attributes:
      key: of the images and how they were prepared.
    """

    folder: Path
    key: str
    side: int
    count: int

    @classmethod
    def of(cls, images: ImageSet, folder: Path | str, preprocessing: Preprocessing) -> "_Kept":
        how = preprocessing.resize, preprocessing.crop, preprocessing.interpolation
        key = fingerprint(FORMAT, images.fingerprint(), how)
        return cls(Path(folder) / key, key, preprocessing.crop, len(images))

    def lacking_bytes(self) -> int:
        chunks = range(0, self.count, CHUNK)
        lacking = sum(
            self._end(first) - first for first in chunks if not self._path(first).exists()
        )
        return lacking * self.side**2 * 3

    def read_from(self, start: int, size: int) -> Generator[_Chunk, None, None]:
        """Images from `start` on, `size` at a time and less at the end; until some are missing."""
        first = start - start % CHUNK
        held, skipped = _Chunk(np.empty((0, self.side, self.side, 3), np.uint8), []), start - first
        with closing(self._read_ahead(first)) as chunks:
            for images, reasons in chunks:
                if len(held.images):
                    images = np.concatenate([held.images, images])
                    reasons = held.reasons + reasons
                whole = len(images) - (len(images) - skipped) % size
                for row in range(skipped, whole, size):
                    yield _Chunk(images[row : row + size], reasons[row : row + size])
                held, skipped = _Chunk(images[whole:], reasons[whole:]), 0
                first += CHUNK
        if first >= self.count and held.reasons:
            yield held

    def write(self, first: int, chunk: _Chunk) -> None:
        about = json.dumps([self.key, first, chunk.reasons]).encode() + b"\n"
        pixels = np.ascontiguousarray(chunk.images).data
        digest = hashlib.sha256(about)
        digest.update(pixels)
        make_folder(self.folder)
        with whole_file(self._path(first)) as partial, partial.open("wb") as file:
            file.write(digest.hexdigest().encode() + b"\n" + about)
            file.write(pixels)

    def _read_ahead(self, first: int) -> Generator[_Chunk, None, None]:
        """Chunk after chunk, the next one read while one is used; until one is missing."""
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._read, first)
            while (chunk := coming.result()) is not None:
                first += CHUNK
                coming = thread.submit(self._read, first)
                yield chunk

    def _read(self, first: int) -> _Chunk | None:
        path = self._path(first)
        if first >= self.count or not path.exists():
            return None
        chunk = self._parsed(path, first)
        if chunk is None:
            logging.getLogger("jaxood").warning("%s is damaged: decoded again", path)
        return chunk

    def _parsed(self, path: Path, first: int) -> _Chunk | None:
        shape = self._end(first) - first, self.side, self.side, 3
        try:
            with path.open("rb") as file:
                written, about = file.readline().strip(), file.readline()
                pixels = np.fromfile(file, np.uint8)
            digest = hashlib.sha256(about)
            digest.update(pixels.data)
            if digest.hexdigest().encode() != written:
                return None
            key, begun, reasons = json.loads(about)
            fits = (key, begun, len(reasons)) == (self.key, first, shape[0])
            return _Chunk(pixels.reshape(shape), reasons) if fits else None
        except (OSError, ValueError, TypeError):
            return None

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:09d}.images"

    def _end(self, first: int) -> int:
        return min(first + CHUNK, self.count)


class _Writer:
    """Takes batches one after the other, and writes each chunk when it is full.

    A chunk that they begin in the middle of is not written.
    """

    def __init__(self, kept: _Kept):
        self._kept = kept
        self._pixels = np.empty((CHUNK, kept.side, kept.side, 3), np.uint8)
        self._reasons: list[str] = []  # of the first rows of the pixels

    def add(self, batch: Batch) -> None:
        first, count = int(batch.indices[0]), int((batch.indices >= 0).sum())
        row = 0
        while row < count:
            begin = (first + row) % CHUNK
            end = min(begin + count - row, CHUNK)
            if begin == 0:
                self._reasons = []
            if begin == len(self._reasons):
                rows = slice(row, row + end - begin)
                self._pixels[begin:end] = batch.images[rows]
                self._reasons += [batch.reasons.get(i, "") for i in batch.indices[rows].tolist()]
            row += end - begin
            full = end == CHUNK or first + row == self._kept.count
            if full and end == len(self._reasons):
                chunk = _Chunk(self._pixels[:end], self._reasons)
                self._kept.write(first + row - end, chunk)
