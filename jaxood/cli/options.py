"""Options that several sub-commands share, and the model that they name."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jaxood.cli.values import fraction, output_folder, positive, positive_or_auto, whole
from jaxood.errors import UsageError

DEFAULT = " (default: %(default)s)"


def add(group, flag: str, metavar: str | None, text: str, **how) -> None:
    """An option with its help; its default is told where it has one."""
    told = text + DEFAULT if how.get("default") and "default" not in text else text
    group.add_argument(flag, metavar=metavar, help=told, **how)


def add_model_arguments(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    """What says which model reads images, and how."""
    group = parser.add_argument_group("model")
    text = "architecture (see `jaxood models`) or package.module:function of a model of your own"
    add(group, "--model", "NAME", text)
    add(group, "--weights", "FILE", "made by `jaxood convert`; names its architecture itself")
    add(group, "--tag", "TAG", "weight tag, where the weights file does not tell it")
    named = "names of the classes, one a line (default: the weights file's, or ImageNet's)"
    add(group, "--classes", "FILE", named, default=())
    add_running_arguments(group)
    if seed:
        add_seed_argument(group)
    add_distributed_arguments(parser)


def add_running_arguments(group) -> None:
    """What says how images are read and run through a model."""
    arithmetic = "of the backbone: float32; tensorfloat32, on GPUs; bfloat16, slower on CPUs"
    add(group, "--dtype", "TYPE", arithmetic, default="float32")
    size = "images a step, over all devices; auto: as many as they hold"
    add(group, "--batch-size", "N", size, type=positive_or_auto, default=32)
    text = "larger images are left out, by name (default: PIL's limit, 89478485)"
    add(group, "--max-pixels", "N", text, type=positive)
    group.add_argument("--quiet", action="store_true", help="no progress, no closing line")
    kept = "for trained and converted weights (default: $JAXOOD_CACHE or ~/.cache/jaxood)"
    add(group, "--cache-dir", "DIR", kept, dest="cache")


def add_seed_argument(group) -> None:
    """--seed."""
    add(group, "--seed", "N", "of every random draw (default: 0)", type=whole, default=0)


def model_from(args: argparse.Namespace, suite: str = "digits", dtype: str | None = None):
    """The model that --model and --weights name; that of a suite when neither does.

    Args:
      dtype: instead of --dtype.

    Raises:
      UsageError: see `jaxood.load_model`.
    """
    from jaxood.flows.sources import load_model, model_of_suite

    limit_pixels(args)
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
        dtype=dtype or args.dtype,
        classes=args.classes,
        cache=args.cache,
    )


def limit_pixels(args: argparse.Namespace) -> None:
    """Lets --max-pixels hold for all images of this process."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = args.max_pixels or Image.MAX_IMAGE_PIXELS


def add_method_arguments(parser, default: str, nargs: str | None = None) -> None:
    """--method and --set."""
    text = f"composed with + (default: {default}); `jaxood methods` lists them"
    add(parser, "--method", "NAME", text, nargs=nargs, default=[default] if nargs else default)
    setting = "a parameter of a step, such as knn.k=50; may be repeated"
    add(parser, "--set", "NAME.PARAM=VALUE", setting, action="append", default=[])


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Methods, what is tried of them, and how it is measured."""
    add_method_arguments(parser, "sfp", "+")
    text = "each value in turn on the same features, such as knn.k=5,10,50; may be repeated"
    add(parser, "--sweep", "NAME.PARAM=V1,V2", text, action="append", default=[])
    text = "choose on validation images: knn.k=10,50, or openood for its search; may be repeated"
    add(parser, "--tune", "NAME.PARAM=V1,V2", text, action="append", default=[])
    text = "definition of FPR95: plain, openood, nnguide or sfp"
    add(parser, "--fpr-convention", "NAME", text, default="plain")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The positional images."""
    text = "image files, folders of them, .txt lists with a path a line; or one tfds:NAME:SPLIT"
    add(parser, "images", "IMAGE", text, nargs="+")


def add_map_arguments(parser: argparse.ArgumentParser):
    """--method, --maps, --random-maps and --target: the maps that are tested."""
    group = parser.add_argument_group("maps")
    text = "attributions of this package (default: banzhaf, unless --maps is given)"
    add(group, "--method", "NAME", text, nargs="+")
    text = "maps from elsewhere; may be repeated"
    add(group, "--maps", "NAME=FILE.npz", text, action="append", default=[])
    text = "random maps an image, whose mean is the baseline"
    add(group, "--random-maps", "N", text, type=positive, default=3)
    text = "class to follow, by index, name or WordNet id (default: each image's top class)"
    add(group, "--target", "CLASS", text)
    return group


def named_maps(maps: list[str]) -> dict[str, str]:
    """Files by name, from "NAME=FILE".

    Raises:
      UsageError: for other text, and a name that comes twice.
    """
    found: dict[str, str] = {}
    for text in maps:
        name, equals, file = text.partition("=")
        if not (name and equals and file) or name in found:
            raise UsageError("maps", text, "NAME=FILE.npz, a name once")
        found[name] = file
    return found


def add_bank_arguments(group) -> None:
    """--bank-fraction, --balanced-bank."""
    text = "of the training images to fit on (default: 1 %%, but enough of a small set)"
    add(group, "--bank-fraction", "F", text, type=fraction)
    text = "as many of each class, instead of any at random"
    group.add_argument("--balanced-bank", action="store_true", help=text)


def add_cache_argument(group) -> None:
    """--cache-images."""
    text = "folder to keep decoded images in, as the model takes them: other runs decode none"
    add(group, "--cache-images", "DIR", text, type=output_folder)


def add_output_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """--output DIR."""
    text = "folder for the results; the same command goes on in it"
    add(parser, "--output", "DIR", text, type=output_folder, default=default)


def add_figures_argument(parser: argparse.ArgumentParser) -> None:
    """--figures KIND."""
    text = "format of the curves and grids: png, svg or pdf"
    add(parser, "--figures", "NAME", text, choices=("png", "svg", "pdf"), default="png")


def add_distributed_arguments(parser: argparse.ArgumentParser) -> None:
    """What says that several processes do one run together."""
    group = parser.add_argument_group("several processes, each started with the same command")
    text = "share the work; on a TPU pod and under SLURM nothing else has to be said"
    group.add_argument("--distributed", action="store_true", help=text)
    text = "of process 0, elsewhere; with --processes and --process"
    add(group, "--coordinator", "HOST:PORT", text)
    add(group, "--processes", "N", "how many there are", type=positive)
    add(group, "--process", "I", "the number of this one, from 0", type=whole)
    text = "without a sign of life, after which a process is held dead (default: 100)"
    add(group, "--lost-after", "SECONDS", text, type=positive)


# Of how a command is run, not of what it does: no part of command.toml.
DISTRIBUTED = frozenset({"distributed", "coordinator", "processes", "process", "lost_after"})


@contextlib.contextmanager
def sharing_work(args: argparse.Namespace) -> Iterator[None]:
    """Within, --distributed holds; a process that is not the first says and writes nothing.

    Raises:
      UsageError: see `jaxood.distributed`.
    """
    how = {name: value for name in DISTRIBUTED if (value := getattr(args, name, None)) is not None}
    if not how.pop("distributed", False):
        for name, value in sorted(how.items()):
            raise UsageError(name, value, "--distributed beside it")
        yield
        return
    from jaxood.processes import distributed, is_first

    with contextlib.ExitStack() as stack:
        output = stack.enter_context(_output_apart())
        stack.enter_context(distributed(**how))
        if not is_first():
            args.quiet, output = True, stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(output))
        yield


@contextlib.contextmanager
def _output_apart() -> Iterator[TextIO]:
    """The output, to which only this package writes; gloo writes of its connections to it."""
    sys.stdout.flush()
    with open(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as output:
        os.dup2(2, 1)
        try:
            yield output
        finally:
            output.flush()
            os.dup2(output.fileno(), 1)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """What tables for a paper show, and in which order."""
    group = parser.add_argument_group("tables")
    text = "columns, such as auroc fpr95 aupr_in (default: AUROC and FPR95)"
    add(group, "--metric", "NAME", text, dest="metrics", nargs="+", default=())
    text = "sets: every OOD set and the means of groups; groups: the means alone"
    add(group, "--columns", "NAME", text, default="groups")
    add(group, "--sort", "NAME", "order of the methods: a metric, best first; or method")
    add_json_argument(parser)
