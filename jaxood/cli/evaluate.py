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

import numpy as np

from jaxood.files import cache_dir
from jaxood.cli.options import (
    add_bank_arguments,
    add_model_arguments,
    add_output_argument,
    load_from,
    progress_bar,
)
from jaxood.errors import UsageError, choose

SHOWN = 5  # undecodable images of a set that are named on the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        nargs="+",
        default=["sfp"],
        metavar="NAME",
        help="one or more, composed with + (default: sfp); an unknown name lists them all",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.PARAM=VALUE",
        help="a parameter of a step, such as knn.k=50; may be repeated",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME.PARAM=V1,V2",
        help="each value in turn on the same features, such as knn.k=5,10,50; may be repeated",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--suite",
        default=None,
        metavar="NAME",
        help="digits (default) or photos, instead of folders",
    )
    data.add_argument("--id-dir", type=Path, metavar="DIR", help="in-distribution test images")
    data.add_argument("--train-dir", type=Path, metavar="DIR", help="training images, for fitting")
    data.add_argument(
        "--ood-dir",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="out-of-distribution images; may be repeated",
    )
    add_bank_arguments(data)
    parser.add_argument(
        "--fpr-convention",
        default="plain",
        metavar="NAME",
        help="definition of FPR95: plain (default), openood, nnguide or sfp",
    )
    add_model_arguments(parser)
    add_output_argument(parser, "runs/evaluate")


def run(args: argparse.Namespace) -> None:
    from jaxood.detectors.methods import parse_methods
    from jaxood.detectors.parameters import parse_settings, parse_sweeps
    from jaxood.evaluation.metrics import FPR_CONVENTIONS
    from jaxood.evaluation.report import table
    from jaxood.pipeline import baseline, evaluate

    choose("--fpr-convention", args.fpr_convention, FPR_CONVENTIONS)
    settings, sweeps = parse_settings(args.set), parse_sweeps(args.sweep)
    methods = parse_methods(args.method, settings, sweeps)
    plain = [name for method in methods if (name := baseline(method.name))]
    known = {method.name for method in methods}
    missing = [name for name in dict.fromkeys(plain) if name not in known]
    methods = [*parse_methods(missing), *methods]
    suite = _suite(args)
    model = _model(args)
    evaluation = evaluate(
        model,
        suite,
        methods,
        batch_size=args.batch_size,
        bank_fraction=args.bank_fraction,
        balanced_bank=args.balanced_bank,
        convention=args.fpr_convention,
        seed=args.seed,
        folder=args.output / "features",
        progress=progress_bar,
    )
    print(table(evaluation.results, args.fpr_convention))
    _report(args, model, suite, evaluation)


def _suite(args: argparse.Namespace):
    from jaxood.data.suites import SUITES, folders_suite

    folders = args.id_dir or args.train_dir or args.ood_dir
    if not folders:
        return SUITES[choose("--suite", args.suite or "digits", SUITES)]()
    if args.suite:
        raise UsageError("--suite", f"{args.suite} and folders", "one of them")
    if not (args.id_dir and args.ood_dir):
        lacking = "--ood-dir" if args.id_dir else "--id-dir"
        raise UsageError(lacking, "nothing", "a folder, beside the other folders")
    return folders_suite(args.train_dir, args.id_dir, args.ood_dir)


def _model(args: argparse.Namespace):
    if not (args.model or args.weights):
        if args.suite == "photos":
            args.weights = _photos_weights(cache_dir(args.cache_dir))
        elif args.id_dir:
            raise UsageError("--weights", "nothing", "the weights of a model for these images")
    return load_from(args)


def _photos_weights(cache: Path) -> Path:
    """The real MobileNetV2 that a pip package carries, converted on first use."""
    from jaxood.conversion import convert_checkpoint
    from jaxood.data.suites import mobilenet_v2_checkpoint

    checkpoint = mobilenet_v2_checkpoint()
    weights = cache / "mobilenet_v2-IMAGENET1K_V1.safetensors"
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        convert_checkpoint(checkpoint, weights, "mobilenet_v2", "IMAGENET1K_V1")
    return weights


def _report(args, model, suite, evaluation) -> None:
    """Prints what the table does not tell, and writes the files."""
    from jaxood.evaluation import plots, report
    from jaxood.manifest import manifest, write_json

    results, features, sets = evaluation.results, evaluation.features, evaluation.sets
    known = suite.id_test.name
    accuracy = report.accuracy(suite.id_test, features[known])
    if accuracy is not None:
        print(f"accuracy on {known}: {100 * accuracy:.2f} %")
    for name, images in sets.items():
        skipped = features[name].skipped
        if skipped:
            print(f"{name}: {len(skipped)} of {len(images)} images left out: undecodable")
            for own, reason in list(skipped.items())[:SHOWN]:
                print(f"  {own}: {reason}")
            if len(skipped) > SHOWN:
                print(f"  ... all of them in {args.output / 'manifest.json'}")

    arrays = {
        f"scores/{result.name}/{name}": scores
        for result in results
        for name, scores in result.scores.items()
    }
    for name, own in features.items():
        images = sets[name]
        arrays[f"ids/{name}"] = np.array([images.ids[index] for index in own.indices])
        arrays[f"predicted/{name}"] = own.logits.argmax(axis=1)
        if images.labels is not None:
            arrays[f"labels/{name}"] = images.labels[own.indices]
    report.write_scores(args.output, arrays)
    report.write_metrics(args.output, results, args.fpr_convention)
    plots.draw_roc(args.output / "roc.png", results, known)
    plots.draw_histograms(args.output / "scores.png", results, known)
    about = manifest(
        vars(args),
        model,
        sets.values(),
        skipped={name: own.skipped for name, own in features.items()},
        methods={method: repr(own) for method, own in evaluation.methods.items()},
        accuracy=accuracy,
        bank=evaluation.bank,
    )
    write_json(args.output / "manifest.json", about)
    print(f"written to {args.output}: metrics, scores, manifest and pictures")
