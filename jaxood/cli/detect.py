"""Says for each image what it shows, and whether it is in distribution (ID) or not (OOD).

The detector file comes from `jaxood fit`; the weights must be those it was fitted with. Lines
come as batches finish. Images that cannot be decoded are named on the error output and left out.

  jaxood detect photos/ cat.jpg --detector detector.safetensors --weights resnet50.safetensors
  jaxood detect photos/ --detector detector.safetensors --weights W --format jsonl > verdicts.jsonl
  find . -name '*.jpg' | jaxood detect - --weights W        paths, judged as they come
  tar c photos | jaxood detect - --weights W                images in a tar archive
  jaxood detect inbox/ --weights W --watch                  what is in a folder, and what comes

Exit code: 0; with --fail-on-ood 3 when an image is out of distribution.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from jaxood.cli.options import add, add_image_arguments, add_model_arguments, model_from
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    text = "go on with images that are put into the folders, until interrupted"
    parser.add_argument("--watch", action="store_true", help=text)
    text = f"end with exit code {FOREIGN} when an image is out of distribution"
    parser.add_argument("--fail-on-ood", action="store_true", help=text)
    text, file = "made by `jaxood fit`", Path("detector.safetensors")
    add(parser, "--detector", "FILE", text, type=Path, default=file)
    text = "package.module:Name of a class of your own that the detector's method is made of;"
    how = {"dest": "parts", "action": "append", "default": []}
    add(parser, "--part", "PATH", f"{text} may be repeated", **how)
    text = "of the lines: table, csv or jsonl"
    add(parser, "--format", "NAME", text, choices=tuple(WRITERS), default="table")
    add_model_arguments(parser, seed=False)


def run(args: argparse.Namespace) -> int:
    from jaxood.detectors.grammar import class_of_part
    from jaxood.detectors.saved import load_detector as read_detector
    from jaxood.flows.detect import record, summary
    from jaxood.flows.detector import load_detector
    from jaxood.processes import is_first

    sets = _sets(args)
    parts = [class_of_part(name, "parts") for name in args.parts]
    fitted = read_detector(args.detector, parts).model["name"]
    if not args.weights and not args.model and fitted != "digits_cnn":
        raise UsageError("weights", "nothing", f"the weights of {fitted} that it was fitted with")
    detector = load_detector(args.detector, model_from(args), parts)
    skipped = []

    def left_out(image) -> None:
        if is_first():
            print(f"left out: {image.id}: {image.reason}", file=sys.stderr)
        skipped.append(image)

    write, counts = None, {True: 0, False: 0}
    for images in sets:
        write = write or WRITERS[args.format](images.ids)
        verdicts = detector.detect(images, batch_size=args.batch_size, on_skipped=left_out)
        for verdict in verdicts:
            write(record(verdict))
            counts[verdict.in_distribution] += 1
            sys.stdout.flush()
    if not args.quiet:
        print(summary(detector, counts[True], counts[False], len(skipped)), file=sys.stderr)
    return FOREIGN if args.fail_on_ood and counts[False] else 0


def _sets(args: argparse.Namespace) -> Iterable[Any]:
    """What is to be judged, a set after the other."""
    from jaxood.data.arrivals import from_stream, new_in
    from jaxood.data.sources import image_set
    from jaxood.runner.batch_size import AUTO, DEFAULT

    if args.distributed and (args.watch or args.images == ["-"]):
        raise UsageError("distributed", "images that come one after the other", "files or folders")
    if args.watch:
        return new_in(args.images)
    if args.images == ["-"]:
        group = DEFAULT if args.batch_size == AUTO else args.batch_size
        return from_stream(cast(io.BufferedReader, sys.stdin.buffer), group)
    return [image_set(args.images)]


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


FOREIGN = 3  # exit code
WRITERS = {"table": _table, "csv": _csv, "jsonl": _jsonl}
