"""Give a weights file a head: one that came without, or for other classes than it came with.

Fitted on your labelled images, a folder a class: multinomial logistic regression on penultimate
features (`--kind linear`), or the nearest class mean. What is to be chosen is chosen on --val-dir,
or on one in ten of the training images.

  jaxood convert --checkpoint dinov2_vits14_pretrain.pth --output dinov2.safetensors
  jaxood head --weights dinov2.safetensors --train-dir photos/train --output mine.safetensors

A CLIP image tower takes embeddings of texts instead, made outside: `classes`, and where there are
some `names`, `negatives` and `scale` in an .npz file.

  jaxood head --weights clip.safetensors --texts imagenet.npz --output zero-shot.safetensors
"""

import argparse
from pathlib import Path

from jaxood.cli.options import (
    add,
    add_cache_argument,
    add_distributed_arguments,
    add_seed_argument,
    limit_pixels,
)
from jaxood.cli.values import number, output_file, positive, progress_bar, telling_replaced
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add(parser, "--weights", "FILE", "made by `jaxood convert`, with a head or without")
    add(parser, "--output", "FILE", "weights file to write (.safetensors)", type=output_file)
    add(parser, "--kind", "NAME", "linear or class-mean", default="linear")
    text = "of the regularisation of a linear head (default: the best of several)"
    add(parser, "--l2", "X", text, type=number)
    data = parser.add_argument_group("data")
    text = "labelled images: a folder a class, or a list"
    add(data, "--train-dir", "DIR", text, dest="train")
    add(data, "--val-dir", "DIR", "other ones, to choose by", dest="validation")
    add(data, "--texts", "FILE", ".npz or .npy of embeddings, instead of images")
    text = "where the paths of lists begin; a .txt line is split at the first blank, as OpenOOD's"
    add(data, "--data-root", "DIR", text, dest="root", type=Path)
    add(data, "--classes", "FILE", "names of the classes, one a line", default=())
    add_cache_argument(data)
    group = parser.add_argument_group("running")
    add(group, "--batch-size", "N", "images a step", type=positive, default=32)
    text = "larger images are left out, by name (default: PIL's limit, 89478485)"
    add(group, "--max-pixels", "N", text, type=positive)
    group.add_argument("--quiet", action="store_true", help="no progress")
    add_seed_argument(group)
    kept = "for what is compiled (default: $JAXOOD_CACHE or ~/.cache/jaxood)"
    add(group, "--cache-dir", "DIR", kept, dest="cache")
    add_distributed_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.head import head
    from jaxood.processes import is_first

    for argument in ("weights", "output"):
        if getattr(args, argument) is None:
            raise UsageError(argument, "nothing", "a file name")
    limit_pixels(args)
    with telling_replaced(args.output):
        report = head(
            args.weights,
            args.output,
            args.kind,
            train=args.train,
            validation=args.validation,
            texts=args.texts,
            l2=args.l2,
            classes=args.classes,
            root=args.root,
            batch_size=args.batch_size,
            seed=args.seed,
            cache_images=args.cache_images,
            progress=None if args.quiet else progress_bar,
        )
    if is_first():
        print(report)
