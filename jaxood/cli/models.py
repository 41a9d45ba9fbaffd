"""List the architectures: parameters, input, feature map, and the weights published for them.

Accuracies are ImageNet top-1 in per cent as published (CIFAR's for networks of 32x32 images). A
name may have a tag: `jaxood models resnet50.a1_in1k`. Layers are those at the ends of blocks, as
`gram[layers=...]` takes them; `all` there is every layer.
"""

import argparse

from jaxood.cli.options import add_json_argument
from jaxood.cli.values import as_json

HEADER = (
    "architecture",
    "parameters",
    "input",
    "feature map",
    "tag",
    "top-1",
    "source",
    "checkpoint",
    "layers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="only this architecture, or this tag of it")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.models.registry import model_rows

    if args.json:
        return print(as_json(model_rows(args.name)))
    rows = [HEADER, *map(_cells, model_rows(args.name))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _cells(row) -> tuple[str, ...]:
    return (
        row.architecture,
        f"{row.parameters / 1e6:.2f} M",
        f"{row.input}x{row.input}",
        "x".join(map(str, row.feature_map)),
        row.tag,
        "" if row.top1 is None else f"{row.top1:.1f}",
        row.source,
        row.checkpoints[0] if row.checkpoints else "",
        "/".join(row.layers),
    )
