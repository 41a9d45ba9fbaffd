"""Names of classes: ImageNet's 1,000 in the order of their indices, and how a user names one."""

import difflib
import functools
from importlib import resources

from jaxood.errors import UsageError


@functools.cache
def _table() -> tuple[tuple[str, str], ...]:
    text = resources.files("jaxood.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((wnid, name) for wnid, name in rows)


def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids, by which class folders are named ("n01440764"...)."""
    return tuple(wnid for wnid, _ in _table())


def imagenet_names() -> tuple[str, ...]:
    """Short English names, all different ("tench"...)."""
    return tuple(name for _, name in _table())


def class_names(classes: int) -> tuple[str, ...]:
    """Names for a model of so many classes: ImageNet's for 1,000, else "class 0"..."""
    return imagenet_names() if classes == 1000 else tuple(f"class {i}" for i in range(classes))


def find_class(text: str, names: tuple[str, ...]) -> int:
    """The class of that index, name or (ImageNet) WordNet id, in a model with classes `names`.

    Raises:
      UsageError: for one that the model does not have.
    """
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(names):
        return int(text)
    if text in names:
        return names.index(text)
    if names == imagenet_names() and text in imagenet_wnids():
        return imagenet_wnids().index(text)
    close = difflib.get_close_matches(text, names, n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else ""
    raise UsageError("target", repr(text), f"an index below {len(names)}, or a name", remedy)
