"""A suite: image sets by the role they play in a study."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxood.data.images import ImageSet
from jaxood.data.lists import SUFFIXES
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, require
from jaxood.files import printable


@dataclass(frozen=True)
class Suite:
    """Image sets by role. An OOD set may be called anything, "train" as well.

    Attributes:
      train: what methods are fitted on, if there is such.
      id_test: in distribution, not trained on.
      ood: out of distribution, by name.
      id_validation: in distribution, for what is tuned or calibrated; never scored.
      ood_validation: out of distribution, for the same.
      shifted: in distribution too, but of another kind than the training images (drawings,
        corrupted photographs), by name: covariate-shifted.
      groups: names of OOD sets by group ("near", "far"), in order; a set is in one at most.
      classes: how many a model must have for the labels to be its own; None: any number.
      missing: what is said of a set that belongs to the suite but is not on the disk; by "train",
        "id_validation", "ood_validation" or "shifted.NAME".
    """

    name: str
    train: ImageSet | None
    id_test: ImageSet
    ood: Mapping[str, ImageSet]
    id_validation: ImageSet | None = None
    ood_validation: ImageSet | None = None
    shifted: Mapping[str, ImageSet] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        seen: dict[str, str] = {}
        for group, names in self.groups.items():
            for name in names:
                wanted = f"one of {', '.join(self.ood)}"
                require(name in self.ood, "groups", f"{name} in {group}", wanted)
                got = f"{name} in {seen.get(name)} and in {group}"
                require(name not in seen, "groups", got, "a set in one group at most")
                seen[name] = group


def folders_suite(
    train: Path | str | None,
    id_test: Path | str,
    ood: Mapping[str, Path | str],
    root: Path | str | None = None,
) -> Suite:
    """Folders or lists of the user's own, or sets of TFDS, the OOD ones by name.

    All of them are looked at before anything is computed.

    Args:
      root: of the paths in lists, see `ImageFiles.from_path`.

    Raises:
      UsageError: for one that is missing or empty, for one that is both ID and OOD, and for a root
        without a list.
    """
    require_root([path for path in (train, id_test, *ood.values()) if path is not None], root)
    train_set = None if train is None else image_set(train, "train", "train", root)
    test_set = image_set(id_test, "in distribution", "id_test", root)
    foreign = {name: image_set(path, name, "ood", root) for name, path in ood.items()}
    for role, path in (("train", train), ("id_test", id_test)):
        for other in ood.values():
            if path is not None and _same(path, other):
                wanted = f"another folder than that of {role}"
                raise UsageError("ood", printable(other), wanted)
    return Suite("folders", train_set, test_set, foreign)


def _same(one: Path | str, other: Path | str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # a set of TFDS is no file
        return one == other


def require_root(paths: list[Path | str], root: Path | str | None) -> None:
    """Raises UsageError for a root that is no folder, or that no list among the paths needs."""
    if root is None:
        return
    require(os.path.isdir(root), "root", printable(root) or "nothing", "a folder that exists")
    lists = any(Path(path).suffix in SUFFIXES for path in paths)
    remedy = "A folder's images are where it is"
    require(lists, "root", printable(root), "a list (.txt, .csv) among the images", remedy)
