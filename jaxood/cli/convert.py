"""Turn a PyTorch checkpoint into a weights file.

Architecture and tag are recognised from the checkpoint where that is possible. Nothing in the
checkpoint is executed: a pickle that asks for more than tensors is refused.
"""

import argparse
import json
from pathlib import Path

from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help=".pth, .pt, .bin, .ckpt or .safetensors"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="weights file to write (.safetensors)"
    )
    parser.add_argument("--arch", metavar="NAME", help="architecture, where it is not recognised")
    parser.add_argument(
        "--tag", help="weight tag, whose preprocessing is used, where it is not recognised"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with the publisher's own model (torchvision, timm) at three depths;"
        " the report goes beside the weights file as .parity.json",
    )
    parser.add_argument("--list", action="store_true", help="list architectures and tags")


def run(args: argparse.Namespace) -> None:
    from jaxood.conversion import convert_checkpoint
    from jaxood.conversion.convert import convertible
    from jaxood.models.registry import ARCHITECTURES

    if args.list:
        for name in convertible():
            for tag, weights in ARCHITECTURES[name].tags.items():
                print(f"{name:<20} {tag:<26} {', '.join(weights.checkpoints)}")
        return
    for argument in ("checkpoint", "output"):
        if getattr(args, argument) is None:
            raise UsageError(f"--{argument}", "nothing", "a file name")
    report = convert_checkpoint(args.checkpoint, args.output, args.arch, args.tag, args.verify)
    print(report)
    if report.parity is not None:
        print(json.dumps(report.parity, indent=2))
