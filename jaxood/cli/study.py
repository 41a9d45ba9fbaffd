"""Evaluates several models, suites and seeds, and makes one table of all.

Each run is what `jaxood evaluate` makes, in a folder of its own under --output; table.md, table.tex
and metrics.csv there are of all. Results of several weights of one NAME, and of several seeds, are
shown as mean and standard deviation.

  jaxood study --suite digits --seed 0 1 2 --method sfp knn
  jaxood study --weights r50=resnet50.safetensors vit=vit_b_16.safetensors --suite photos
  jaxood study --weights r18=s0.safetensors r18=s1.safetensors r18=s2.safetensors \\
      --suite openood-cifar10 --data-root data --method msp energy nnguide
"""

import argparse

from jaxood.cli.options import (
    add,
    add_bank_arguments,
    add_cache_argument,
    add_evaluation_arguments,
    add_output_argument,
    add_running_arguments,
    add_table_arguments,
    limit_pixels,
)
from jaxood.cli.report import show
from jaxood.cli.values import progress_bar, whole
from jaxood.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_evaluation_arguments(parser)
    data = parser.add_argument_group("data")
    add(data, "--suite", "NAME", "one or more", dest="suites", nargs="+", default=["digits"])
    add(data, "--data-root", "DIR", "where the images of the suites lie", dest="root")
    text = "also with covariate-shifted images as in distribution, where a suite has such"
    data.add_argument("--full-spectrum", action="store_true", help=text)
    add_bank_arguments(data)
    add_cache_argument(data)
    group = parser.add_argument_group("models")
    text = "weights files, or package.module:function; default: the model of each suite"
    add(group, "--weights", "NAME=FILE", text, dest="models", nargs="+")
    add_running_arguments(group)
    text = "of every random draw; a run for each (default: 0)"
    add(group, "--seed", "N", text, dest="seeds", type=whole, nargs="+", default=[0])
    add_table_arguments(parser)
    add_output_argument(parser, "runs/study")


def run(args: argparse.Namespace) -> int:
    from jaxood.detectors.grammar import parse_settings, parse_sweeps, parse_tune
    from jaxood.flows.sources import load_model
    from jaxood.flows.study import study

    limit_pixels(args)
    found = study(
        _models(args.models),
        args.suites,
        args.method,
        seeds=args.seeds,
        settings=parse_settings(args.set),
        sweeps=parse_sweeps(args.sweep),
        tune=parse_tune(args.tune),
        batch_size=args.batch_size,
        bank_fraction=args.bank_fraction,
        balanced_bank=args.balanced_bank,
        fpr_convention=args.fpr_convention,
        full_spectrum=args.full_spectrum,
        root=args.root,
        output=args.output,
        cache_images=args.cache_images,
        load=lambda source: load_model(source, dtype=args.dtype, cache=args.cache),
        progress=None if args.quiet else _bars,
    )
    show(found, args)
    if not args.quiet:
        print(f"written to {args.output}: tables, and a folder a run")
    return 1 if found.failures else 0


def _bars(run: str):
    return lambda name: progress_bar(f"{run}: {name}")


def _models(texts: list[str] | None):
    """Models by name where there are names; a file without one is called as its weights say."""
    if texts is None:
        return None
    if not any("=" in text for text in texts):
        return texts
    models: dict[str, list[str]] = {}
    for text in texts:
        name, _, file = text.partition("=")
        require(bool(name and file), "models", text, "NAME=FILE, as the others")
        models.setdefault(name, []).append(file)
    return models
