"""Options that several sub-commands share, and what they become."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jaxood.errors import UsageError


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
    """--model, --weights, --tag, --classes, --dtype, --batch-size, --seed, --cache-dir."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="architecture (see `jaxood models`) or package.module:function of a model of your own",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file made by `jaxood convert`; it names its architecture itself",
    )
    group.add_argument("--tag", help="weight tag, where the weights file does not tell it")
    group.add_argument(
        "--classes",
        default=(),
        metavar="FILE",
        help="names of the classes, one a line (default: the weights file's, or ImageNet's)",
    )
    group.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="arithmetic of the backbone: float32 (default) or bfloat16",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="images a step, over all devices (default: %(default)s)",
    )
    if seed:
        add_seed_argument(group)
    group.add_argument(
        "--cache-dir",
        dest="cache",
        metavar="DIR",
        help="for trained and converted weights (default: $JAXOOD_CACHE or ~/.cache/jaxood)",
    )


def add_seed_argument(group) -> None:
    """--seed."""
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of every random draw (default: 0)"
    )


def model_from(args: argparse.Namespace, suite: str = "digits"):
    """The model that --model and --weights name; that of a suite when neither does.

    Raises:
      UsageError: see `jaxood.load_model`.
    """
    from jaxood.flows.sources import load_model, model_of_suite

    source = args.model if args.weights is None else Path(args.weights)
    if source is None:
        source = model_of_suite(suite, args.cache)
    if args.weights is not None and ":" in (args.model or ""):
        remedy = "A model of your own loads its weights itself"
        raise UsageError("weights", args.weights, f"nothing beside {args.model}", remedy)
    return load_model(
        source,
        arch=None if args.weights is None else args.model,
        tag=args.tag,
        dtype=args.dtype,
        classes=args.classes,
        cache=args.cache,
    )


def add_method_arguments(parser: argparse.ArgumentParser, default: list[str], several: bool):
    """--method and --set."""
    parser.add_argument(
        "--method",
        dest="methods",
        nargs="+" if several else 1,
        default=default,
        metavar="NAME",
        help=f"composed with + (default: {' '.join(default)}); `jaxood methods` lists them",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.PARAM=VALUE",
        help="a parameter of a step, such as knn.k=50; may be repeated",
    )


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The positional images."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of them, or .txt lists with a path a line",
    )


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
    try:
        path = Path(text).absolute()
        present = next(folder for folder in (path, *path.parents) if folder.exists())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be made: {error}") from None
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


def progress_bar(name: str, unit: str = " images") -> Callable[[int, int], None]:
    """A bar for one image set; returns what is told (images done, images in all)."""
    from tqdm import tqdm

    bar = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # images of an earlier, interrupted run do not count in the rate
            bar = tqdm(
                desc=name, total=total, initial=done, unit=unit, file=sys.stderr, smoothing=0.1
            )
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update
