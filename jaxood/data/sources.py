"""Whatever a user calls images, as an image set."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet, Pictures, check_pictures, is_image_set
from jaxood.errors import UsageError


def image_set(
    source: Any,
    name: str | None = None,
    argument: str = "images",
    root: Path | str | None = None,
) -> ImageSet:
    """An image set of paths or of images in memory.

    Args:
      source: an image set, which is given back; a folder, an image file or a list, or a sequence
        of them; a set of TFDS, `tfds:NAME:SPLIT` (see `jaxood.data.tfds`); a PIL image,
        a uint8 array [h, w, 3] or [h, w], an encoded image as bytes, or a sequence of them; a
        uint8 array [n, h, w, 3].
      name: for tables and files; default: of the folder, the file or the set, else "images".
      argument: the parameter that an error names.
      root: of the paths in a list, see `ImageFiles.from_path`.

    Raises:
      UsageError: for anything else, and for what is not there.
    """
    if is_image_set(source):
        return source
    if _is_tfds(source):
        from jaxood.data.tfds import open_tfds

        return open_tfds(source, name, argument)
    if isinstance(source, str | os.PathLike):
        return ImageFiles.from_path(Path(source) if source else "", name, argument, root)
    if isinstance(source, Image.Image | bytes) or (
        isinstance(source, np.ndarray) and source.ndim < 4
    ):
        source = [source]
    if isinstance(source, np.ndarray):
        source = list(source)
    if not isinstance(source, Sequence):
        wanted = "paths, PIL images, uint8 arrays, bytes or an image set"
        raise UsageError(argument, type(source).__name__, wanted)
    if len(source) and all(isinstance(entry, str | os.PathLike) for entry in source):
        if len(source) == 1 and _is_tfds(source[0]):
            return image_set(source[0], name, argument)
        if any(map(_is_tfds, source)):
            got = f"{len(source)} sources, of TFDS among them"
            raise UsageError(argument, got, "a set of TFDS by itself")
        return ImageFiles.from_paths(source, name or "images", argument)
    check_pictures(source, argument)
    return Pictures(source, name or "images")


def _is_tfds(source: Any) -> bool:
    return isinstance(source, str) and source.startswith("tfds:")
