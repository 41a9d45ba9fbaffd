"""Tells in-distribution from out-of-distribution images, and reports how well.

Without data arguments: scikit-learn's digits, nothing to download. With --suite: what `jaxood
suites` lists, such as the benchmarks of the papers and of OpenOOD under --data-root, or a TOML
table of your own. With --id-dir and --ood-dir: folders of images (class sub-folders or flat), or
lists: .csv with the columns path and label, .txt with a path a line and a class index after the
last blank; with --data-root paths are relative to it, and a .txt line is split at the first blank.
A set that TFDS has prepared may stand for a folder: tfds:NAME:SPLIT.

Methods compose: `energy`, `knn`, `sfp` (= sfp+energy), `react+energy`, `sfp+nnguide`. Several at
once cost one pass over the images. The plain score is always shown beside a composed method.

  jaxood evaluate --method sfp
  jaxood evaluate --method sfp knn --weights resnet50.safetensors \\
      --suite openood-imagenet --data-root data --full-spectrum
  jaxood evaluate --method sfp nnguide --weights resnet50.safetensors \\
      --train-dir imagenet/train --id-dir imagenet/val --ood-dir sun=SUN/images

Parameters may be chosen on the validation images of a suite, by AUROC, before a test image is
read: --tune knn.k=10,50 among values of your own, --tune openood among those that OpenOOD tries.

Writes metrics.csv and .json (a row a number), table.md and table.tex, scores.csv (a row an image)
and scores.npz, report.html to look at, manifest.json, roc.png and scores.png; tuning.csv.
"""

import argparse
import sys
from pathlib import Path

from jaxood.cli.options import (
    add,
    add_bank_arguments,
    add_cache_argument,
    add_evaluation_arguments,
    add_figures_argument,
    add_json_argument,
    add_model_arguments,
    add_output_argument,
    model_from,
)
from jaxood.cli.values import as_json, is_terminal, progress_bar
from jaxood.errors import UsageError, choose
from jaxood.files import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_evaluation_arguments(parser)
    data = parser.add_argument_group("data")
    text = "see `jaxood suites` (default: digits); or a .toml file, or package.module:name"
    add(data, "--suite", "NAME", text)
    text = "where the images of a suite lie, or the paths of lists begin"
    add(data, "--data-root", "DIR", text, dest="root", type=Path)
    add(data, "--id-dir", "DIR", "in-distribution test images", dest="id_test")
    add(data, "--train-dir", "DIR", "training images, for fitting", dest="train")
    text = "out-of-distribution images; may be repeated"
    add(data, "--ood-dir", "NAME=DIR", text, dest="ood", action="append", default=[])
    text = "also score covariate-shifted ID sets, and count them as in distribution"
    data.add_argument("--full-spectrum", action="store_true", help=text)
    add_bank_arguments(data)
    add_cache_argument(data)
    add_model_arguments(parser)
    text = "run again in this arithmetic, and tell what it changes: ranks of images, AUROC"
    add(parser, "--compare-dtype", "TYPE", text)
    add(parser, "--sort", "NAME", "order of the methods: auroc, fpr95 or method")
    add_json_argument(parser)
    add_output_argument(parser, "runs/evaluate")
    add_figures_argument(parser)


def run(args: argparse.Namespace) -> int:
    from jaxood.detectors.grammar import parse_settings, parse_sweeps, parse_tune
    from jaxood.flows.evaluate import evaluate
    from jaxood.flows.evaluation import PRECISION
    from jaxood.flows.precision import compare, told, write_changes
    from jaxood.flows.request import check_request
    from jaxood.models.arithmetic import ARITHMETIC
    from jaxood.processes import is_first

    settings, sweeps = parse_settings(args.set), parse_sweeps(args.sweep)
    tune = parse_tune(args.tune)
    check_request(args.method, settings, sweeps, args.fpr_convention, args.seed, tune)
    suite = _suite(args)
    if args.compare_dtype is not None:
        choose("compare_dtype", args.compare_dtype, ARITHMETIC)

    def evaluated(dtype: str):
        return evaluate(
            model_from(args, suite.name, dtype),
            suite,
            args.method,
            settings=settings,
            sweeps=sweeps,
            tune=tune,
            batch_size=args.batch_size,
            bank_fraction=args.bank_fraction,
            balanced_bank=args.balanced_bank,
            full_spectrum=args.full_spectrum,
            fpr_convention=args.fpr_convention,
            seed=args.seed,
            store=args.output / "features",
            cache_images=args.cache_images,
            progress=None if args.quiet else progress_bar,
        )

    result, found = evaluated(args.dtype), []
    if is_first():
        # First: whoever reads the output may have gone.
        result.save(args.output, figures=args.figures)
    if args.compare_dtype is not None:
        found = compare(result, evaluated(args.compare_dtype))
        if is_first():
            write_changes(args.output / PRECISION, found)
    if args.json:
        print(as_json(result.report.rows))
    else:
        print(result.text(args.sort, bold=is_terminal(sys.stdout)))
        if found:
            print(told(found, args.dtype, args.compare_dtype))
    if not args.quiet:
        print(f"written to {args.output}: report.html, metrics, scores, pictures")
    return 1 if result.failures else 0


def _suite(args: argparse.Namespace):
    from jaxood.data.suite import folders_suite
    from jaxood.data.suites import suite

    folders = args.id_test is not None or args.train is not None or args.ood
    if not folders:
        return suite(args.suite or "digits", args.root)
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
    return folders_suite(args.train, args.id_test, ood, args.root)
