"""Arguments that several sub-commands share, and what they become."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jaxood.files import cache_dir
from jaxood.data.images import ImageFiles
from jaxood.models.registry import LoadedModel


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def fraction(text: str) -> float:
    """A number in (0, 1], for argparse."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def add_model_arguments(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    """--model, --weights, --tag, --dtype, --batch-size, --seed (unless told), --cache-dir."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="architecture (see `jaxood models`) or package.module:function of a model of your own",
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights file made by convert_weights.py; it names its architecture itself",
    )
    group.add_argument("--tag", help="weight tag, where the weights file does not tell it")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="arithmetic of the backbone (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="images a step, over all devices (default: %(default)s)",
    )
    if seed:
        group.add_argument(
            "--seed", type=int, default=0, metavar="N", help="of every random draw (default: 0)"
        )
    group.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="for trained and converted weights (default: $JAXOOD_CACHE or ~/.cache/jaxood)",
    )


def load_from(args: argparse.Namespace) -> LoadedModel:
    """The model that --model and --weights name; the digits network when neither does.

    Raises:
      UsageError: see `jaxood.models.loading.load_model`.
    """
    from jaxood.models.loading import load_model
    from jaxood.training import digits_weights

    name, weights = args.model, args.weights
    if weights is None and name in (None, "digits_cnn"):
        name, weights = "digits_cnn", digits_weights(cache_dir(args.cache_dir))
    return load_model(name, weights, args.tag, args.dtype)


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The positional images."""
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image files, folders of them, or .txt lists with a path a line",
    )


def images_from(args: argparse.Namespace) -> ImageFiles:
    """The images that were named, as one set.

    Raises:
      UsageError: for a path that does not exist or a folder without images.
    """
    return ImageFiles.from_paths(args.images)


def add_bank_arguments(group) -> None:
    """--bank-fraction, --balanced-bank."""
    group.add_argument(
        "--bank-fraction",
        type=fraction,
        metavar="F",
        help="of the training images to fit on (default: 1 %%, but enough of a small set)",
    )
    group.add_argument(
        "--balanced-bank",
        action="store_true",
        help="as many of each class, instead of any at random",
    )


def output_folder(text: str) -> Path:
    """A folder that is there or can be made, for argparse: known before hours are spent."""
    path = Path(text).absolute()
    present = next(folder for folder in (path, *path.parents) if folder.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be made: {present} is no writable folder")
    return Path(text)


def add_output_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """--output DIR."""
    parser.add_argument(
        "--output",
        type=output_folder,
        default=default,
        metavar="DIR",
        help="folder for the results; the same command goes on in it (default: %(default)s)",
    )


def progress_bar(name: str) -> Callable[[int, int], None]:
    """A bar for one image set; returns what is told (images done, images in all)."""
    from tqdm import tqdm

    bar = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # images of an earlier, interrupted run do not count in the rate
            bar = tqdm(desc=name, total=total, initial=done, unit=" images", file=sys.stderr)
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update
