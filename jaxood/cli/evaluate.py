"""Tells in-distribution from out-of-distribution images, and reports how well.

Without data arguments: scikit-learn's digits, nothing to download. With --id-dir and --ood-dir:
folders of images (class sub-folders or flat), or .txt lists with a path a line.

Methods compose: `energy`, `knn`, `sfp` (= sfp+energy), `react+energy`, `sfp+nnguide`. Several at
once cost one pass over the images. The plain score is always shown beside a composed method.

  jaxood evaluate --method sfp
  jaxood evaluate --method sfp nnguide --weights resnet50.safetensors \\
      --train-dir imagenet/train --id-dir imagenet/val --ood-dir sun=SUN/images

Writes metrics.csv, metrics.json, scores.npz, manifest.json, roc.png and scores.png.
"""

import argparse
from pathlib import Path

from jaxood.cli.options import (
    add,
    add_bank_arguments,
    add_method_arguments,
    add_model_arguments,
    add_output_argument,
    model_from,
)
from jaxood.cli.values import progress_bar
from jaxood.errors import UsageError
from jaxood.files import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_method_arguments(parser, "sfp", "+")
    text = "each value in turn on the same features, such as knn.k=5,10,50; may be repeated"
    add(parser, "--sweep", "NAME.PARAM=V1,V2", text, action="append", default=[])
    data = parser.add_argument_group("data")
    text = "digits (default), photos, or package.module:name of a suite of your own"
    add(data, "--suite", "NAME", text)
    add(data, "--id-dir", "DIR", "in-distribution test images", dest="id_test")
    add(data, "--train-dir", "DIR", "training images, for fitting", dest="train")
    text = "out-of-distribution images; may be repeated"
    add(data, "--ood-dir", "NAME=DIR", text, dest="ood", action="append", default=[])
    add_bank_arguments(data)
    text = "definition of FPR95: plain, openood, nnguide or sfp"
    add(parser, "--fpr-convention", "NAME", text, default="plain")
    add_model_arguments(parser)
    add_output_argument(parser, "runs/evaluate")


def run(args: argparse.Namespace) -> int:
    from jaxood.detectors.grammar import parse_settings, parse_sweeps
    from jaxood.flows.evaluate import check_request, evaluate

    settings, sweeps = parse_settings(args.set), parse_sweeps(args.sweep)
    check_request(args.method, settings, sweeps, args.fpr_convention, args.seed)
    suite = _suite(args)
    result = evaluate(
        model_from(args, suite.name),
        suite,
        args.method,
        settings=settings,
        sweeps=sweeps,
        batch_size=args.batch_size,
        bank_fraction=args.bank_fraction,
        balanced_bank=args.balanced_bank,
        fpr_convention=args.fpr_convention,
        seed=args.seed,
        store=args.output / "features",
        progress=progress_bar,
    )
    result.save(args.output)  # first: whoever reads the output may have gone
    print(result)
    print(f"written to {args.output}: metrics, scores, manifest and pictures")
    return 1 if result.failures else 0


def _suite(args: argparse.Namespace):
    from jaxood.data.suites import folders_suite, suite

    folders = args.id_test is not None or args.train is not None or args.ood
    if not folders:
        return suite(args.suite or "digits")
    if args.suite:
        raise UsageError("suite", f"{args.suite} and folders", "one of them")
    if args.id_test is None or not args.ood:
        lacking = "id_test" if args.id_test is None else "ood"
        raise UsageError(lacking, "nothing", "a folder, beside the other folders")
    ood: dict[str, str] = {}
    for text in args.ood:
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = Path(text).name, text
        name = printable(name)
        if not name or name in ood:
            raise UsageError("ood", text, "a name for each set, all different")
        ood[name] = folder
    return folders_suite(args.train, args.id_test, ood)
