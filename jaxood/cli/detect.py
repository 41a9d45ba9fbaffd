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
from typing import Any

from jaxood.cli.options import add, add_image_arguments, add_model_arguments, model_from
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    text, file = "made by `jaxood fit`", Path("detector.safetensors")
    add(parser, "--detector", "FILE", text, type=Path, default=file)
    text = "package.module:Name of a class of your own that the detector's method is made of;"
    how = {"dest": "parts", "action": "append", "default": []}
    add(parser, "--part", "PATH", f"{text} may be repeated", **how)
    text = "of the lines: table, csv or jsonl"
    add(parser, "--format", "NAME", text, choices=tuple(WRITERS), default="table")
    add_model_arguments(parser, seed=False)


def run(args: argparse.Namespace) -> None:
    from jaxood.data.sources import image_set
    from jaxood.detectors.grammar import class_of_part
    from jaxood.detectors.saved import load_detector as read_detector
    from jaxood.flows.detect import record, summary
    from jaxood.flows.detector import load_detector

    images = image_set(args.images)
    parts = [class_of_part(name, "parts") for name in args.parts]
    fitted = read_detector(args.detector, parts).model["name"]
    if not args.weights and not args.model and fitted != "digits_cnn":
        raise UsageError("weights", "nothing", f"the weights of {fitted} that it was fitted with")
    detector = load_detector(args.detector, model_from(args), parts)
    skipped = []

    def left_out(image) -> None:
        print(f"left out: {image.id}: {image.reason}", file=sys.stderr)
        skipped.append(image)

    write, counts = WRITERS[args.format](images.ids), {True: 0, False: 0}
    verdicts = detector.detect(images, batch_size=args.batch_size, on_skipped=left_out)
    for verdict in verdicts:
        write(record(verdict))
        counts[verdict.in_distribution] += 1
        sys.stdout.flush()
    if not args.quiet:
        print(summary(detector, counts[True], counts[False], len(skipped)), file=sys.stderr)


def _table(ids: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    width = max(len(name) for name in ids)
    print(f"{'image':<{width}}  {'class':<24}  {'prob.':>6}  {'score':>10}  verdict")

    def write(row: dict[str, Any]) -> None:
        shown = f"{row['name'] or row['class']:<24}  {row['probability']:6.1%}"
        print(f"{row['image']:<{width}}  {shown}  {row['score']:10.4f}  {row['verdict']}")

    return write


def _csv(ids: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    from jaxood.flows.detect import COLUMNS

    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    return writer.writerow


def _jsonl(ids: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    return lambda row: print(json.dumps(row, ensure_ascii=False))


WRITERS = {"table": _table, "csv": _csv, "jsonl": _jsonl}
