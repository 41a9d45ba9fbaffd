"""The sets of a suite before they are opened: where each lies under a root, and what it holds."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from jaxood.data.class_names import imagenet_wnids
from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, require
from jaxood.files import printable

TFDS = "tfds:"
SINGLE = ("train", "id_validation", "id_test", "ood_validation")
SEVERAL = ("ood", "shifted")
ROLES = (*SINGLE, *SEVERAL)
LABELS = ("wnid", "number", "none")


class MissingImages(UsageError):
    """A set is not on the disk."""


@dataclass(frozen=True)
class SetEntry:
    """One set of a suite, as its table has it.

    Attributes:
      role: one of `ROLES`.
      name: of the set.
      paths: where it may lie under the root; the first that is there counts.
      is_list: whether they are lists.
      images: the folder under the root that a list's paths are relative to; "": the list's own.
      convention: of a .txt list.
      spellings: names that one folder of a list's images goes by: whichever of them a line begins
        with, the one that is on the disk is meant.
      count: how many images are expected; None: not known.
      source: where they come from.
      group: of an OOD set; "": none.
      labels: what class folders must be called, one of `LABELS`; "": anything.
      cropped: see `ImageFiles`.
    """

    role: str
    name: str
    paths: tuple[str, ...]
    is_list: bool = False
    images: str = ""
    convention: str = "jaxood"
    spellings: tuple[str, ...] = ()
    count: int | None = None
    source: str = ""
    group: str = ""
    labels: str = ""
    cropped: bool = False

    @property
    def key(self) -> str:
        """Its heading in the table: "train", "ood.sun"."""
        return f"{self.role}.{self.name}" if self.role in SEVERAL else self.role

    @property
    def has_root(self) -> bool:
        """Whether a root decides where it is."""
        return not all(path.startswith(TFDS) or os.path.isabs(path) for path in self.paths)

    def opened(self, root: Path) -> ImageSet:
        """Its images, with labels where it is in distribution.

        Raises:
          MissingImages: when they are not there; of a list, when the first is not.
          UsageError: when they are not as the table says.
        """
        path = self._path(root)
        if self.is_list:
            images = self.listed(root)
            if not os.path.exists(images.path(0)):
                raise self._missing(images.path(0))
        elif not path.startswith(TFDS) and not os.path.exists(path):
            raise self._missing(path)
        else:
            try:
                found = image_set(path, self.name, "root")
            except UsageError as error:  # not prepared, or an empty folder
                got = f"{self.key}: {error.got}"
                raise MissingImages("root", got, error.wanted, error.remedy) from None
            if not isinstance(found, ImageFiles):
                return found
            images = found
        if self.role in ("ood", "ood_validation") or self.labels == "none":
            images = replace(images, labels=None, labels_are_classes=False, class_names=())
        elif self.labels:
            self._require_class_folders(images)
        return replace(images, cropped=self.cropped)

    def listed(self, root: Path) -> ImageFiles:
        """The images of its list, be they there or not, with the list's labels.

        Raises:
          MissingImages: when the list is not there.
          UsageError: when it cannot be read.
        """
        path = self._path(root)
        if not os.path.exists(path):
            raise self._missing(path)
        folder = root / self.images if self.images else Path(path).parent
        images = ImageFiles.from_list(path, folder, self.name, self.convention, "root")
        return replace(images, files=self._spelled(images))

    def _missing(self, path: str) -> MissingImages:
        got = f"{self.key}: {printable(path)} is not there"
        wanted = "its images" if self.count is None else f"its {self.count} images"
        remedy = f"They come from {self.source}" if self.source else ""
        return MissingImages("root", got, wanted, remedy)

    def _path(self, root: Path) -> str:
        paths = [path if path.startswith(TFDS) else str(root / path) for path in self.paths]
        there = (path for path in paths if not path.startswith(TFDS) and os.path.exists(path))
        return next(there, paths[0])

    def _spelled(self, images: ImageFiles) -> tuple[str, ...]:
        there = [name for name in self.spellings if os.path.isdir(Path(images.root) / name)]
        if not there:
            return tuple(images.files)
        begins = tuple(f"{name}/" for name in self.spellings)
        return tuple(
            f"{there[0]}/{file.partition('/')[2]}" if file.startswith(begins) else file
            for file in images.files
        )

    def _require_class_folders(self, images: ImageFiles) -> None:
        kinds = {"wnid": "ImageNet's WordNet ids", "number": "numbers"}
        folders = {file.partition("/")[0] if "/" in file else "" for file in images.files}
        if self.labels == "wnid":
            wrong = folders.difference(imagenet_wnids())
        else:
            wrong = {folder for folder in folders if not re.fullmatch("[0-9]{1,9}", folder)}
        if wrong:
            first = printable(min(wrong))
            got = f"{self.key}: a class folder {first}" if first else f"{self.key}: no class folder"
            raise UsageError("root", got, f"class folders named by {kinds[self.labels]}")


@dataclass(frozen=True)
class SuiteTable:
    """A suite that is not opened yet.

    Attributes:
      classes: how many a model must have; None: any number.
      entries: its sets, in the order of the roles and of the table.
    """

    name: str
    description: str
    entries: tuple[SetEntry, ...]
    classes: int | None = None

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of OOD sets by group, both in the order of the table."""
        found: dict[str, tuple[str, ...]] = {}
        for entry in self.entries:
            if entry.group:
                found[entry.group] = (*found.get(entry.group, ()), entry.name)
        return found

    @property
    def needs_root(self) -> bool:
        """Whether images of it lie in a folder of the user's."""
        return any(entry.has_root for entry in self.entries)

    def require_root(self, root: Path | str | None) -> Path:
        """The root, where sets need one.

        Raises:
          UsageError: when it is missing, not a folder, or given where all sets do without.
        """
        if root is None:
            wanted = f"the folder in which the images of {self.name} lie"
            require(not self.needs_root, "root", "none", wanted)
            return Path()
        wanted = f"none, as nothing of {self.name} lies in a folder of yours"
        require(self.needs_root, "root", printable(root), wanted)
        require(os.path.isdir(root), "root", printable(root) or "nothing", "a folder that exists")
        return Path(root)
