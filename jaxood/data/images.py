"""Sets of images that give uint8 batches of one fixed size: files, and arrays in memory."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxood.data.decode import UndecodableImage, read, silence_pil
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

EXTENSIONS = frozenset(".bmp .gif .jpeg .jpg .jp2 .pgm .png .ppm .tif .tiff .webp".split())


class Batch(NamedTuple):
    """Images of one fixed number, those that could not be decoded and the padding marked.

    Attributes:
      indices: place of each image in its set; -1 for padding.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    valid: Bool[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]


class ImageSet(Protocol):
    """What the pipeline reads.

    Attributes:
      name: for tables and folders.
      ids: one name an image.
      labels: class indices, or None.
      labels_are_classes: whether they surely are the model's: WordNet ids, numbers, digits.
      skipped: reason by id of the images that could not be decoded so far.
    """

    name: str
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"] | None
    labels_are_classes: bool
    skipped: dict[str, str]

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when the images do."""
        ...

    def subset(self, indices: Int[np.ndarray, " m"]) -> "ImageSet": ...

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Iterator[Batch]:
        """Batches of exactly `batch_size` from image `start` on, the last one padded."""
        ...


def _padded(images: np.ndarray, valid: np.ndarray, first: int, batch_size: int) -> Batch:
    count = len(images)
    indices = np.arange(first, first + count)
    if count < batch_size:
        missing = batch_size - count
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        valid = np.concatenate([valid, np.zeros(missing, bool)])
        indices = np.concatenate([indices, np.full(missing, -1)])
    return Batch(images, valid, indices)


@dataclass
class Arrays:
    """Images in memory, already of the model's input size."""

    images: UInt8[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, " n"] | None
    name: str
    labels_are_classes: bool = True
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.name}/{index}" for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images)).hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "Arrays":
        labels = None if self.labels is None else self.labels[indices]
        return Arrays(self.images[indices], labels, self.name)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Iterator[Batch]:
        side = preprocessing.crop
        if self.images.shape[1:] != (side, side, 3):
            raise UsageError(
                self.name, f"images {self.images.shape[1:]}", f"({side}, {side}, 3) as the model's"
            )
        for first in range(start, len(self), batch_size):
            images = self.images[first : first + batch_size]
            yield _padded(images, np.ones(len(images), bool), first, batch_size)


@dataclass
class ImageFiles:
    """Image files, decoded in parallel by a tf.data pipeline."""

    paths: Sequence[Path]
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"] | None
    name: str
    labels_are_classes: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_path(cls, path: Path | str, name: str | None = None) -> "ImageFiles":
        """A folder (class sub-folders or flat), one image, or a list of them (.txt).

        A list has a path a line, relative to the list's folder, and may have a class index after
        the last blank, as OpenOOD's lists do. Class folders named by ImageNet's WordNet ids or by
        numbers mean those classes; other names are numbered in sorted order.

        Raises:
          UsageError: when there is nothing there, or no image in it.
        """
        path = Path(path)
        name = name or path.stem
        if not path.exists():
            raise UsageError(
                "images", printable(path), "a folder, an image or a .txt list that exists"
            )
        if path.is_dir():
            return _from_folder(path, name)
        if path.suffix == ".txt":
            return _from_list(path, name)
        return cls((path,), (printable(path.name),), None, name)

    @classmethod
    def from_paths(cls, paths: Sequence[Path | str], name: str = "images") -> "ImageFiles":
        """Several folders, images or lists as one set; ids are the paths as they were given."""
        parts = [cls.from_path(path) for path in paths]
        ids = tuple(
            printable(Path(path) / own) if Path(path).is_dir() else printable(path)
            for path, part in zip(paths, parts, strict=True)
            for own in part.ids
        )
        return cls(tuple(file for part in parts for file in part.paths), ids, None, name)

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path, own in zip(self.paths, self.ids, strict=True):
            try:
                status = os.stat(path)
                digest.update(f"{own}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{own}\0missing\n".encode())
        return digest.hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "ImageFiles":
        return ImageFiles(
            tuple(self.paths[index] for index in indices),
            tuple(self.ids[index] for index in indices),
            None if self.labels is None else self.labels[indices],
            self.name,
            self.labels_are_classes,
        )

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Iterator[Batch]:
        from jaxood.data.tensorflow import tf

        silence_pil()
        side = preprocessing.crop

        def load(index):
            try:
                return read(self.paths[index], preprocessing), np.True_
            except UndecodableImage as error:
                self.skipped[self.ids[index]] = str(error)
                return np.zeros((side, side, 3), np.uint8), np.False_

        def load_tensors(index):
            image, valid = tf.numpy_function(load, [index], [tf.uint8, tf.bool])
            return tf.ensure_shape(image, (side, side, 3)), tf.ensure_shape(valid, ())

        options = tf.data.Options()
        options.deterministic = True
        # PIL releases the interpreter's lock, so threads decode in parallel: two a core hide reads.
        options.threading.private_threadpool_size = max(2, 2 * (os.cpu_count() or 1))
        dataset = (
            tf.data.Dataset.range(start, len(self))
            .map(load_tensors, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size)
            .prefetch(2)
            .with_options(options)
        )
        for number, (images, valid) in enumerate(dataset.as_numpy_iterator()):
            yield _padded(images, valid, start + number * batch_size, batch_size)


def printable(path: Path | str) -> str:
    """A path as valid UTF-8, whatever bytes the file system gave."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _from_folder(folder: Path, name: str) -> ImageFiles:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        found += [
            Path(parent, file)
            for file in sorted(files)
            if Path(file).suffix.lower() in EXTENSIONS and not file.startswith(".")
        ]
    if not found:
        raise UsageError(
            name,
            f"{printable(folder)} without an image in it",
            f"files ending in {' '.join(sorted(EXTENSIONS))}, in class sub-folders or flat",
        )
    inside = [path.relative_to(folder) for path in found]
    labels, sure = None, False
    if all(len(path.parts) > 1 for path in inside):
        number, sure = _class_numbers(sorted({path.parts[0] for path in inside}))
        labels = np.array([number[path.parts[0]] for path in inside])
    ids = tuple(printable(path.as_posix()) for path in inside)
    return ImageFiles(tuple(found), ids, labels, name, sure)


def _class_numbers(classes: list[str]) -> tuple[dict[str, int], bool]:
    """Number by folder, and whether the names themselves tell it."""
    if all(folder.isdecimal() for folder in classes):
        return {folder: int(folder) for folder in classes}, True
    from jaxood.data.class_names import imagenet_wnids

    wnids = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    if all(folder in wnids for folder in classes):
        return {folder: wnids[folder] for folder in classes}, True
    return {folder: index for index, folder in enumerate(classes)}, False


def _from_list(file: Path, name: str) -> ImageFiles:
    try:
        lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UsageError(name, f"{printable(file)}, which is not text", "one path a line") from None
    if not lines:
        raise UsageError(name, f"{printable(file)}, which is empty", "one path a line")
    split = [line.rsplit(maxsplit=1) for line in lines]
    labelled = all(len(parts) == 2 and parts[1].lstrip("-").isdecimal() for parts in split)
    names = [parts[0] for parts in split] if labelled else lines
    labels = np.array([int(parts[1]) for parts in split]) if labelled else None
    paths = tuple(file.parent / own for own in names)
    return ImageFiles(paths, tuple(names), labels, name, labelled)
