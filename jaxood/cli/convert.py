"""Turn a PyTorch checkpoint into a weights file.

Architecture and tag are recognised from the checkpoint where that is possible. Nothing in the
checkpoint is executed: a pickle that asks for more than tensors is refused.

  jaxood convert --checkpoint resnet50_a1_0-14fe96d1.pth --output resnet50.safetensors
  jaxood convert --arch resnet50.a1_in1k --checkpoint model.pth --output resnet50.safetensors
  jaxood convert --checkpoint hf://timm/resnet50.a1_in1k --output resnet50.safetensors
"""

import argparse

from jaxood.cli.options import add
from jaxood.cli.values import number, output_file, positive, telling_replaced
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = ".pth, .pt, .bin, .ckpt or .safetensors; of the Hugging Face Hub:"
    text += " hf://OWNER/REPO[/FILE][@REVISION], model.safetensors where no FILE is named"
    add(parser, "--checkpoint", "FILE", text)
    add(parser, "--output", "FILE", "weights file to write (.safetensors)", type=output_file)
    add(parser, "--arch", "NAME", "architecture, where it is not recognised")
    text = "weight tag, whose preprocessing is used, where it is not recognised"
    add(parser, "--tag", "TAG", text)
    group = parser.add_argument_group(
        "preprocessing",
        "of a fine-tuned checkpoint, instead of the tag's, or of timm's config.json beside it",
    )
    side = "pixels of the shorter side after resizing"
    add(group, "--resize", "N", side, type=positive)
    add(group, "--crop", "N", "pixels of the side of the central square", type=positive)
    add(group, "--interpolation", "NAME", "bilinear or bicubic")
    add(group, "--mean", "X", "of red, green and blue, in [0, 1]", nargs=3, type=number)
    add(group, "--std", "X", "of red, green and blue", nargs=3, type=number)
    add(parser, "--classes", "FILE", "names of the classes, one a line", default=())
    text = "compare with the publisher's own model (torchvision, timm) at three depths;"
    text += " the report goes beside the weights file as .parity.json"
    parser.add_argument("--verify", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    from jaxood.conversion import convert
    from jaxood.flows.sources import class_names_of

    for argument in ("checkpoint", "output"):
        if getattr(args, argument) is None:
            raise UsageError(argument, "nothing", "a file name")
    given = {name: getattr(args, name) for name in ("resize", "crop", "interpolation")}
    given |= {name: tuple(getattr(args, name) or ()) for name in ("mean", "std")}
    with telling_replaced(args.output):
        report = convert(
            args.checkpoint,
            args.output,
            arch=args.arch,
            tag=args.tag,
            preprocessing={name: value for name, value in given.items() if value},
            classes=class_names_of(args.classes),
            verify=args.verify,
        )
    print(report)
