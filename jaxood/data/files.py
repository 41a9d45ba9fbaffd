"""Image files as a set: folders, lists of paths, single files; decoded in parallel."""

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from jaxood.data.decode import Whole, read, read_whole
from jaxood.data.images import Batch, check_labels
from jaxood.data.lists import SUFFIXES, read_list
from jaxood.data.pipeline import decoded_batches
from jaxood.errors import UsageError
from jaxood.files import printable
from jaxood.preprocessing import Preprocessing

EXTENSIONS = frozenset(".bmp .gif .jpeg .jpg .jp2 .pgm .png .ppm .tif .tiff .webp".split())


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files below a folder.

    Attributes:
      root: the folder; "" where the files are paths by themselves.
      files: paths relative to it, as the file system spells them.
      cropped: they have been cut to what a model takes already: resized to its `crop` instead of
        `resize`, so that no margin is cut off once more.
    """

    root: str
    files: Sequence[str]
    name: str
    labels: Int[np.ndarray, " n"] | None = None
    labels_are_classes: bool = False
    class_names: tuple[str, ...] = ()
    cropped: bool = False

    def __post_init__(self):
        check_labels(self.labels, len(self.files))

    @classmethod
    def from_path(
        cls,
        path: Path | str,
        name: str | None = None,
        argument: str = "images",
        root: Path | str | None = None,
    ) -> "ImageFiles":
        """A folder (class sub-folders or flat), one image, or a list of them (.txt, .csv).

        What lists look like: `jaxood.data.lists`. Class folders named by ImageNet's WordNet ids or
        by numbers mean those classes; other names are numbered in sorted order.

        Args:
          argument: the parameter that an error names.
          root: the folder that a list's paths are relative to; a .txt list is then read as OpenOOD
            reads its lists. None: the list's own folder, and a label after the last blank.

        Raises:
          UsageError: when there is nothing there, no image in it, or a list that cannot be read.
        """
        text = os.fspath(path)
        if not text or not os.path.exists(text):
            wanted = "a folder, an image, or a .txt or .csv list, that exists"
            raise UsageError(argument, printable(text) or "nothing", wanted)
        path = Path(path)
        name = printable(path.stem) if name is None else name
        if path.is_dir():
            return _from_folder(str(path), name, argument)
        if path.suffix in SUFFIXES and path.is_file():
            convention = "jaxood" if root is None else "openood"
            folder = path.parent if root is None else root
            return cls.from_list(path, folder, name, convention, argument)
        return cls(str(path.parent), (path.name,), name)

    @classmethod
    def from_list(
        cls,
        file: Path | str,
        root: Path | str,
        name: str,
        convention: str = "jaxood",
        argument: str = "images",
    ) -> "ImageFiles":
        """The images of a list, whose paths are relative to `root`; see `read_list`."""
        listed = read_list(Path(file), convention, argument)
        return cls(
            str(root),
            listed.files,
            name,
            listed.labels,
            listed.labels_are_classes,
            listed.class_names,
        )

    @classmethod
    def from_paths(
        cls, paths: Sequence[Path | str], name: str = "images", argument: str = "images"
    ) -> "ImageFiles":
        """Several folders, images or lists as one set, without labels.

        Ids are paths that begin as the given ones do.

        Raises:
          UsageError: as `from_path`, and when there is none.
        """
        if not paths:
            raise UsageError(argument, "nothing", "at least one folder, image or .txt list")
        parts = [cls.from_path(path, argument=argument) for path in paths]
        return cls("", tuple(path for part in parts for path in part.paths()), name)

    @cached_property
    def ids(self) -> Sequence[str]:
        shown = [printable(file) for file in self.files]
        return self.files if shown == list(self.files) else tuple(shown)

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Where the file is."""
        return os.path.join(self.root, self.files[index]) if self.root != "." else self.files[index]

    def paths(self) -> Iterator[str]:
        """All of them, in order."""
        return (self.path(index) for index in range(len(self)))

    def fingerprint(self) -> str:
        return self._digests[0]

    @property
    def sizes(self) -> str:
        """Changes with names and sizes of the files: copies have the same, whenever written."""
        return self._digests[1]

    @cached_property
    def _digests(self) -> tuple[str, str]:
        kind = "cropped " if self.cropped else ""
        begin = f"{kind}{Image.MAX_IMAGE_PIXELS}\n".encode()
        files, sizes = hashlib.sha256(begin), hashlib.sha256(begin)
        for path, shown in zip(self.paths(), self.ids, strict=True):
            try:
                status = os.stat(path)
                size, written = str(status.st_size), f"\0{status.st_mtime_ns}"
            except OSError:
                size, written = "missing", ""
            files.update(f"{shown}\0{size}{written}\n".encode())
            sizes.update(f"{shown}\0{size}\n".encode())
        return files.hexdigest(), sizes.hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "ImageFiles":
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, files=tuple(self.files[index] for index in indices), labels=labels)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        preprocessing = self._resizing(preprocessing)

        def load(index: int):
            return read(self.path(index), preprocessing)

        return decoded_batches(load, len(self), preprocessing.crop, batch_size, start)

    def whole(self, index: int, preprocessing: Preprocessing) -> Whole:
        return read_whole(self.path(index), self._resizing(preprocessing))

    def _resizing(self, preprocessing: Preprocessing) -> Preprocessing:
        resize = preprocessing.crop if self.cropped else preprocessing.resize
        return replace(preprocessing, resize=resize)


def images_below(
    folder: str, inside: str = "", seen: set[tuple[int, int]] | None = None
) -> Iterator[str]:
    """Images in a folder and below it, as paths from `inside` on.

    A link to a folder that was seen already is not followed: it may loop.
    """
    seen = set() if seen is None else seen
    try:
        status = os.stat(folder)
        identity = status.st_dev, status.st_ino
        if identity in seen and os.path.islink(folder):
            return
        seen.add(identity)
        with os.scandir(folder) as entries:
            listed = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    except OSError:  # no right to look into it
        return
    for name, is_folder in listed:
        if not is_folder and os.path.splitext(name)[1].lower() in EXTENSIONS:
            yield inside + name
    for name, is_folder in listed:
        if is_folder:
            yield from images_below(os.path.join(folder, name), f"{inside}{name}/", seen)


def _from_folder(folder: str, name: str, argument: str) -> ImageFiles:
    files = tuple(images_below(folder))
    if not files:
        raise UsageError(
            argument,
            f"{printable(folder)} without an image in it",
            f"files ending in {' '.join(sorted(EXTENSIONS))}, in class sub-folders or flat",
        )
    if not all("/" in file for file in files):
        return ImageFiles(folder, files, name)
    classes = [file.partition("/")[0] for file in files]
    numbers, class_names = class_numbers(sorted(set(classes)))
    labels = np.array([numbers[folder] for folder in classes])
    return ImageFiles(folder, files, name, labels, not class_names, class_names)


def class_numbers(classes: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number by class; and the classes' names where it is their order alone that tells it.

    Classes named by ImageNet's WordNet ids or by numbers mean those classes.
    """
    if all(re.fullmatch("[0-9]{1,9}", folder) for folder in classes):
        return {folder: int(folder) for folder in classes}, ()
    from jaxood.data.class_names import imagenet_wnids

    wnids = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    if all(folder in wnids for folder in classes):
        return {folder: wnids[folder] for folder in classes}, ()
    numbers = {folder: index for index, folder in enumerate(classes)}
    return numbers, tuple(printable(folder) for folder in classes)
