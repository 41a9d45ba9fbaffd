"""Says for each image what it shows, and whether it is in distribution (ID) or not (OOD).

The detector file comes from `jaxood fit`; the weights must be those it was fitted with. Lines
come as batches finish. Images that cannot be decoded are named on the error output and left out.

  jaxood detect photos/ cat.jpg --detector detector.safetensors --weights resnet50.safetensors
  jaxood detect photos/ --detector detector.safetensors --weights W --format jsonl > verdicts.jsonl
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxood.cli.options import add_image_arguments, add_model_arguments, images_from, load_from
from jaxood.errors import UsageError

FIELDS = ("image", "class", "name", "probability", "score", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--detector",
        type=Path,
        default=Path("detector.safetensors"),
        metavar="FILE",
        help="made by `jaxood fit` (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=tuple(WRITERS), default="table", help="default: %(default)s"
    )
    add_model_arguments(parser, seed=False)


def run(args: argparse.Namespace) -> None:
    from jaxood.detectors.saved import load_detector

    images = images_from(args)
    detector = load_detector(args.detector)
    fitted = detector.model["name"]
    if not args.weights and not args.model and fitted != "digits_cnn":
        raise UsageError("--weights", "nothing", f"the weights of {fitted} that it was fitted with")
    model = load_from(args)
    detector.require_model(model)

    from jaxood.detection import detect

    write = WRITERS[args.format](images.ids)
    counts, skipped = {"ID": 0, "OOD": 0}, 0
    for verdicts, left_out in detect(model, detector, images, args.batch_size):
        for verdict in verdicts:
            known = "ID" if verdict.in_distribution else "OOD"
            counts[known] += 1
            write(
                images.ids[verdict.place],
                verdict.label,
                detector.classes[verdict.label] if detector.classes else "",
                verdict.probability,
                verdict.score,
                known,
            )
        sys.stdout.flush()
        for own, reason in left_out.items():
            print(f"left out: {own}: {reason}", file=sys.stderr)
        skipped += len(left_out)
    print(
        f"{counts['ID']} in distribution, {counts['OOD']} not, {skipped} left out; "
        f"{detector.method.name}, threshold {detector.threshold:.6g} "
        f"({detector.tpr:.4g} of in-distribution images reach it)",
        file=sys.stderr,
    )


def _table(ids: Iterable[str]) -> Callable[..., None]:
    width = max(len(own) for own in ids)
    print(f"{'image':<{width}}  {'class':<24}  {'prob.':>6}  {'score':>10}  verdict")

    def write(image, label, name, probability, score, verdict):
        shown = f"{name or label:<24}  {probability:6.1%}  {score:10.4f}  {verdict}"
        print(f"{image:<{width}}  {shown}")

    return write


def _csv(ids: Iterable[str]) -> Callable[..., None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(FIELDS)
    return lambda *values: writer.writerow(values)


def _jsonl(ids: Iterable[str]) -> Callable[..., None]:
    return lambda *values: print(
        json.dumps(dict(zip(FIELDS, values, strict=True)), ensure_ascii=False)
    )


WRITERS = {"table": _table, "csv": _csv, "jsonl": _jsonl}
