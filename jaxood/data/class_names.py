"""Names of the 1,000 ImageNet classes, in the order of their indices."""

import functools
from importlib import resources


@functools.cache
def _table() -> tuple[tuple[str, str], ...]:
    text = resources.files("jaxood.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    return tuple(tuple(line.split("\t")) for line in text.splitlines())


def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids, by which class folders are named ("n01440764"...)."""
    return tuple(wnid for wnid, _ in _table())


def imagenet_names() -> tuple[str, ...]:
    """Short English names, all different ("tench"...)."""
    return tuple(name for _, name in _table())


def class_names(classes: int) -> tuple[str, ...]:
    """Names for a model of so many classes: ImageNet's for 1,000, else "class 0"..."""
    return imagenet_names() if classes == 1000 else tuple(f"class {i}" for i in range(classes))
