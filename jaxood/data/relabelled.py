"""Labels by the names of classes: those of folders or of a list, as a model numbers them."""

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int

from jaxood.data.images import Batch, ImageSet
from jaxood.files import printable
from jaxood.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class Relabelled:
    """An image set with labels of another numbering, which are a model's classes.

    Attributes:
      numbers: the class that each label of `images` means.
    """

    images: ImageSet
    numbers: Int[np.ndarray, " k"]
    class_names: tuple[str, ...]
    labels_are_classes: bool = True

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """Class indices; -1 stays -1."""
        labels = self.images.labels
        return None if labels is None else np.where(labels < 0, labels, self.numbers[labels])

    @property
    def name(self) -> str:
        return self.images.name

    @property
    def ids(self) -> Sequence[str]:
        return self.images.ids

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        return self.images.fingerprint()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "Relabelled":
        return replace(self, images=self.images.subset(indices))

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        return self.images.batches(preprocessing, batch_size, start)


def as_read(images: ImageSet) -> ImageSet:
    """The set as it was opened, before its labels were numbered otherwise."""
    while isinstance(images, Relabelled):
        images = images.images
    return images


def numbered_by(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """The set with labels that are positions in `names`, where its classes are called like those.

    Where none of them is, labels stay; where some are, too, and it is told.
    """
    if not images.class_names or images.class_names == tuple(names) and images.labels_are_classes:
        return images
    position = {printable(name): index for index, name in enumerate(names)}
    unknown = [name for name in images.class_names if name not in position]
    if not unknown:
        numbers = np.array([position[name] for name in images.class_names])
        return Relabelled(images, numbers, tuple(names))
    if len(unknown) < len(images.class_names) and not images.labels_are_classes:
        told = "%s: %d of %d class names are none of the model's, such as %s: numbered in order"
        log = logging.getLogger("jaxood")
        log.warning(told, images.name, len(unknown), len(images.class_names), unknown[0])
    return images
