"""Sets of images that give uint8 batches of one fixed size: the protocol, and images in memory."""

import hashlib
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from jaxood.data.decode import (
    UndecodableImage,
    Whole,
    decode,
    decode_whole,
    prepare,
    silence_pil,
    uncut,
    whole,
)
from jaxood.errors import UsageError, require
from jaxood.preprocessing import Preprocessing

Made = TypeVar("Made")


class Batch(NamedTuple):
    """Images of one fixed number, those that could not be decoded and the padding marked.

    Attributes:
      indices: of each image in its set; -1 for padding.
      reasons: why an image could not be decoded, by its index in the set.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    valid: Bool[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    reasons: dict[int, str]


@runtime_checkable
class ImageSet(Protocol):
    """Images by index. It does not change: what a pass finds out is in the batches."""

    @property
    def name(self) -> str:
        """For tables and files."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """What each image is called; two may be called the same."""
        ...

    @property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """Class indices."""
        ...

    @property
    def labels_are_classes(self) -> bool:
        """Whether they surely are the model's: WordNet ids, numbers, digits."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels, in their order; () where the images do not tell."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when the images do."""
        ...

    def subset(self, indices: Int[np.ndarray, " m"]) -> "ImageSet":
        """The images at these indices; all else stays."""
        ...

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        """Batches of exactly `batch_size` from image `start` on, the last one padded."""
        ...


@runtime_checkable
class WholeImages(Protocol):
    """An image set that can show what is cut off before a model sees it; not every one can."""

    def whole(self, index: int, preprocessing: Preprocessing) -> Whole:
        """One image as it was resized.

        Raises:
          UndecodableImage: when it cannot be read.
        """
        ...


def wholes(
    images: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> Generator[tuple[int, Whole], None, None]:
    """Index and picture of each image that can be read, squares where the set has nothing else."""
    if isinstance(images, WholeImages):
        silence_pil()
        for index in range(len(images)):
            try:
                picture = images.whole(index, preprocessing)
            except UndecodableImage:
                continue
            yield index, picture
        return
    yield from squares(images, preprocessing, batch_size)


def squares(
    images: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> Generator[tuple[int, Whole], None, None]:
    """Index of each image that can be read, and what a model takes of it."""
    with closing(images.batches(preprocessing, batch_size)) as batches:
        for batch in batches:
            for row in np.flatnonzero(batch.valid):
                yield int(batch.indices[row]), uncut(batch.images[row])


def is_image_set(source: object) -> bool:
    """Whether it has what `ImageSet` asks for.

    Before Python 3.12 `isinstance` asks for its ids and labels, which may take long to make.
    """
    members = [name for name in vars(ImageSet) if not name.startswith("_")]
    try:
        for name in [*members, "__len__"]:
            inspect.getattr_static(source, name)
    except AttributeError:
        return False
    return True


def padded(
    images: UInt8[np.ndarray, "n h w 3"], reasons: Sequence[str], first: int, batch_size: int
) -> Batch:
    """A batch of the images from `first` on.

    Args:
      reasons: why an image could not be decoded; "" for those that were.
    """
    count = len(images)
    indices = np.arange(first, first + count)
    valid = np.array([not reason for reason in reasons], bool)
    if count < batch_size:
        missing = batch_size - count
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        valid = np.concatenate([valid, np.zeros(missing, bool)])
        indices = np.concatenate([indices, np.full(missing, -1)])
    told = {first + row: reason for row, reason in enumerate(reasons) if reason}
    return Batch(images, valid, indices, told)


def check_labels(labels: Int[np.ndarray, " n"] | None, images: int) -> None:
    """Raises UsageError unless there is a label for each image, or none at all."""
    if labels is not None and labels.shape != (images,):
        raise UsageError("labels", f"{labels.shape} of {images} images", f"({images},)")


def check_pictures(pictures: Sequence[Any], argument: str = "images") -> None:
    """Raises UsageError unless they are what `Pictures` takes, and at least one."""
    wanted = "PIL images, uint8 arrays [h, w, 3] or [h, w], or encoded images as bytes"
    require(len(pictures) > 0, argument, "none", "at least one image")
    for index, picture in enumerate(pictures):
        if isinstance(picture, Image.Image | bytes):
            continue
        if not isinstance(picture, np.ndarray):
            raise UsageError(argument, f"{type(picture).__name__} at index {index}", wanted)
        shape = picture.shape
        fits = picture.dtype == np.uint8 and (len(shape) == 2 or shape[2:] == (3,))
        got = f"an array {picture.dtype} {shape} at index {index}"
        require(fits and picture.size > 0, argument, got, wanted)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images in memory, of the model's input size already."""

    images: UInt8[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, " n"] | None
    name: str
    labels_are_classes: bool = True
    class_names: tuple[str, ...] = ()

    def __post_init__(self):
        shape, kind = self.images.shape, self.images.dtype
        fits = kind == np.uint8 and len(shape) == 4 and shape[3] == 3
        require(fits, "images", f"{kind} {shape}", "uint8 [n, h, w, 3]")
        check_labels(self.labels, len(self.images))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return _numbered(self.name, len(self))

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "Arrays":
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        side = preprocessing.crop
        if self.images.shape[1:] != (side, side, 3):
            wanted = f"({side}, {side}, 3) as the model's"
            raise UsageError("images", f"{self.images.shape[1:]} in {self.name}", wanted)
        for first in range(start, len(self), batch_size):
            images = self.images[first : first + batch_size]
            yield padded(images, [""] * len(images), first, batch_size)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images in memory, of any size: PIL images, uint8 arrays [h, w, 3], grey ones [h, w], bytes.

    Bytes are an encoded image. Each is resized and cropped as a file would be, but for arrays that
    have the model's input size already: those are taken as they are.

    Attributes:
      names: what each is called; (): by the set's name and a number.
    """

    pictures: Sequence[Image.Image | np.ndarray | bytes]
    name: str = "images"
    labels: Int[np.ndarray, " n"] | None = None
    labels_are_classes: bool = False
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self):
        check_pictures(self.pictures)
        check_labels(self.labels, len(self.pictures))
        named, count = len(self.names), len(self.pictures)
        require(named in (0, count), "names", f"{named} of {count} images", "one for each")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return self.names or _numbered(self.name, len(self))

    def __len__(self) -> int:
        return len(self.pictures)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for picture in self.pictures:
            if isinstance(picture, Image.Image):
                digest.update(f"{picture.mode} {picture.size}\n".encode())
                digest.update(picture.tobytes())
            elif isinstance(picture, bytes):
                digest.update(f"encoded {len(picture)}\n".encode())
                digest.update(picture)
            else:
                digest.update(f"array {picture.shape}\n".encode())
                digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "Pictures":
        labels = None if self.labels is None else self.labels[indices]
        pictures = [self.pictures[index] for index in indices]
        names = tuple(self.names[index] for index in indices) if self.names else ()
        return replace(self, pictures=pictures, labels=labels, names=names)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        silence_pil()
        for first in range(start, len(self), batch_size):
            last = min(first + batch_size, len(self))
            squares = [_square(self.pictures[i], preprocessing) for i in range(first, last)]
            images, reasons = zip(*squares, strict=True)
            yield padded(np.stack(images), reasons, first, batch_size)

    def whole(self, index: int, preprocessing: Preprocessing) -> Whole:
        picture = self.pictures[index]
        if _is_square(picture, preprocessing):
            return uncut(np.asarray(picture))
        if isinstance(picture, bytes):
            return decode_whole(picture, preprocessing)
        return _opened(picture, lambda image: whole(image, preprocessing))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}/{index}" for index in range(count))


def prepared(
    picture: Image.Image | np.ndarray | bytes, preprocessing: Preprocessing
) -> UInt8[np.ndarray, "h w 3"]:
    """The square that a model takes of a picture in memory, resized and cropped as a file's.

    Raises:
      UndecodableImage: for bytes that are no image, or a file that PIL opened and cannot read.
    """
    if isinstance(picture, bytes):
        return decode(picture, preprocessing)
    return _opened(picture, lambda image: prepare(image, preprocessing))


def _opened(picture: Image.Image | np.ndarray, make: Callable[[Image.Image], Made]) -> Made:
    try:
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        return make(picture)
    except (OSError, ValueError) as error:  # PIL opens files late
        raise UndecodableImage(str(error) or type(error).__name__) from None


def _is_square(picture: object, preprocessing: Preprocessing) -> bool:
    """Whether it is an array that a model takes as it is."""
    side = preprocessing.crop
    return isinstance(picture, np.ndarray) and picture.shape == (side, side, 3)


def _square(
    picture: Image.Image | np.ndarray | bytes, preprocessing: Preprocessing
) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """What a model takes of a picture, or an empty square and the reason."""
    if _is_square(picture, preprocessing):
        return np.asarray(picture), ""
    try:
        return prepared(picture, preprocessing), ""
    except UndecodableImage as error:
        side = preprocessing.crop
        return np.zeros((side, side, 3), np.uint8), str(error)
