"""Makes a detector file: a method fitted on training images, and a threshold.

The threshold lets a share --tpr of the in-distribution images in --id-dir pass; those should not
be among the training images. `jaxood detect` then says of any image whether it is in distribution.

Without data arguments: scikit-learn's digits, nothing to download.

  jaxood fit --weights resnet50.safetensors --train-dir imagenet/train --id-dir imagenet/val \\
      --method sfp+nnguide --output resnet50-nnguide.safetensors

The file holds arrays and JSON only. It names the model, its preprocessing and the hash of its
weights; it is refused with any other. With --export, model, method and threshold also become one
compiled program, which runs with nothing but jax installed; `jaxood.load_scorer` reads it.
"""

import argparse
from pathlib import Path

from jaxood.cli.options import (
    add,
    add_bank_arguments,
    add_cache_argument,
    add_method_arguments,
    add_model_arguments,
    model_from,
)
from jaxood.cli.values import fraction, output_file, progress_bar, telling_replaced
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_method_arguments(parser, "nnguide")
    text = "of in-distribution images that pass"
    add(parser, "--tpr", "F", text, type=fraction, default=0.95)
    data = parser.add_argument_group("data")
    add(data, "--train-dir", "DIR", "training images, for fitting", dest="train")
    text = "in-distribution images, for the threshold"
    add(data, "--id-dir", "DIR", text, dest="calibrate")
    text = "where the paths of lists begin; a .txt line is split at the first blank, as OpenOOD's"
    add(data, "--data-root", "DIR", text, dest="root", type=Path)
    add_bank_arguments(data)
    add_cache_argument(data)
    add_model_arguments(parser)
    text, file = "the detector file", Path("detector.safetensors")
    add(parser, "--output", "FILE", text, type=output_file, default=file)
    text = "also write a program for uint8 batches of --batch-size, made by jax.export"
    add(parser, "--export", "FILE", text, type=output_file)


def run(args: argparse.Namespace) -> None:
    from jaxood.detectors.grammar import parse_settings
    from jaxood.flows.fit import fit
    from jaxood.processes import is_first

    settings = parse_settings(args.set)
    sets = _sets(args)
    detector = fit(
        model_from(args),
        args.method,
        **sets,
        root=args.root,
        tpr=args.tpr,
        settings=settings,
        batch_size=args.batch_size,
        bank_fraction=args.bank_fraction,
        balanced_bank=args.balanced_bank,
        seed=args.seed,
        cache_images=args.cache_images,
        progress=None if args.quiet else progress_bar,
    )
    if not is_first():
        return
    with telling_replaced(args.output, args.export):
        detector.save(args.output)
        if args.export:
            size = detector.images_a_step(args.batch_size)
            detector.export(args.export, size)
    print(detector)
    if args.quiet:
        return
    print(f"written to {args.output}")
    if args.export:
        print(f"written to {args.export}: takes {size} images at once")


def _sets(args: argparse.Namespace) -> dict:
    """Training and calibration images: folders, or those of the digits."""
    if args.train is None and args.calibrate is None:
        if args.weights or args.model not in (None, "digits_cnn"):
            raise UsageError("calibrate", "nothing", "in-distribution images for this model")
        from jaxood.data.suites import suite

        digits = suite("digits")
        return {"train": digits.train, "calibrate": digits.id_test}
    if args.calibrate is None:
        wanted = "in-distribution images beside those for training"
        raise UsageError("calibrate", "nothing", wanted, "The threshold is set on them")
    if not args.weights and not args.model:
        raise UsageError("weights", "nothing", "the weights of a model for these images")
    return {"train": args.train, "calibrate": args.calibrate}
