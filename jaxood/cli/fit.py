"""Makes a detector file: a method fitted on training images, and a threshold.

The threshold lets a share --tpr of the in-distribution images in --id-dir pass; those should not
be among the training images. `jaxood detect` then says of any image whether it is in distribution.

Without data arguments: scikit-learn's digits, nothing to download.

  jaxood fit --weights resnet50.safetensors --train-dir imagenet/train --id-dir imagenet/val \\
      --method sfp+nnguide --output resnet50-nnguide.safetensors

The file holds arrays and JSON only. It names the model, its preprocessing and the hash of its
weights; it is refused with any other. With --export, model, method and threshold also become one
compiled program, which runs with nothing but jax installed.
"""

import argparse
from pathlib import Path

from jaxood.cli.options import (
    add_bank_arguments,
    add_model_arguments,
    fraction,
    load_from,
    progress_bar,
)
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        default="nnguide",
        metavar="NAME",
        help="composed with + (default: %(default)s); an unknown name lists them all",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.PARAM=VALUE",
        help="a parameter of a step, such as knn.k=50; may be repeated",
    )
    parser.add_argument(
        "--tpr",
        type=fraction,
        default=0.95,
        metavar="F",
        help="of in-distribution images that pass (default: %(default)s)",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--train-dir", type=Path, metavar="DIR", help="training images, for fitting")
    data.add_argument(
        "--id-dir", type=Path, metavar="DIR", help="in-distribution images, for the threshold"
    )
    add_bank_arguments(data)
    add_model_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("detector.safetensors"),
        metavar="FILE",
        help="the detector file (default: %(default)s)",
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="also write a program for uint8 batches of --batch-size, made by jax.export",
    )


def run(args: argparse.Namespace) -> None:
    from jaxood.detection import calibrate, export
    from jaxood.detectors.methods import parse_methods
    from jaxood.detectors.parameters import parse_settings
    from jaxood.detectors.saved import save_detector
    from jaxood.store import write_whole

    (method,) = parse_methods([args.method], parse_settings(args.set))
    suite = _suite(args)
    model = load_from(args)
    detector, known = calibrate(
        model,
        suite,
        method,
        args.tpr,
        classes=_class_names(model, suite),
        batch_size=args.batch_size,
        bank_fraction=args.bank_fraction,
        balanced_bank=args.balanced_bank,
        seed=args.seed,
        progress=progress_bar,
    )
    save_detector(args.output, detector)
    if detector.bank is not None:
        print(f"fitted on {len(detector.bank)} of {len(suite.train)} training images")
    passing = (known >= detector.threshold).sum()
    print(
        f"threshold {detector.threshold:.6g} on {method.name}: "
        f"{passing} of {len(known)} in-distribution images reach it"
    )
    print(f"written to {args.output}")
    if args.export:
        write_whole(args.export, export(model, detector, args.batch_size))
        print(f"written to {args.export}: takes {args.batch_size} images at once")


def _suite(args: argparse.Namespace):
    from jaxood.data.suites import SUITES, folders_suite

    if not (args.train_dir or args.id_dir):
        if args.weights or args.model not in (None, "digits_cnn"):
            raise UsageError("--id-dir", "nothing", "in-distribution images for this model")
        return SUITES["digits"]()
    if not args.id_dir:
        wanted = "in-distribution images beside those for training"
        raise UsageError("--id-dir", "nothing", wanted, "The threshold is set on them")
    if not args.weights and not args.model:
        raise UsageError("--weights", "nothing", "the weights of a model for these images")
    return folders_suite(args.train_dir, args.id_dir, [])


def _class_names(model, suite) -> tuple[str, ...]:
    """ImageNet's for 1,000 classes; else of the class folders, where there is one for each."""
    from jaxood.data.class_names import class_names

    count = model.module.head.bias.shape[0]
    for images in (suite.train, suite.id_test):
        folders = getattr(images, "class_folders", ())
        if len(folders) == count != 1000:
            return tuple(sorted(folders, key=int if all(map(str.isdecimal, folders)) else None))
    return class_names(count)
