"""Draws which places of an image a model's decision rests on.

Without --method: the Banzhaf values of SOFA. Several methods at once share one pass; `jaxood
methods` lists them. Parameters may stand in brackets: "score-cam[layer=layer3.5]".

  jaxood attribute photos/ --weights mobilenet_v2.safetensors
  jaxood attribute cat.jpg --weights resnet50.safetensors --method banzhaf grad-cam score-cam
  jaxood attribute cat.jpg --weights resnet50.safetensors --method layercam --layer layer3.5

Writes maps.npz, overlays/ (a PNG an image and method), grid.png, predictions.json, manifest.json.
"""

import argparse

from jaxood.cli.options import (
    add_image_arguments,
    add_model_arguments,
    add_output_argument,
    fraction,
    model_from,
    positive,
    progress_bar,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--method",
        dest="methods",
        nargs="+",
        default=["banzhaf"],
        metavar="NAME",
        help="one or more, such as banzhaf, shapley, grad-cam, score-cam (default: banzhaf)",
    )
    parser.add_argument(
        "--layer",
        metavar="STAGE",
        help="stage for the activation maps (default: the model's own choice)",
    )
    parser.add_argument(
        "--coalitions",
        type=lambda text: text if text == "auto" else positive(text),
        metavar="N",
        help="random subsets of positions for banzhaf and shapley (default: 240); auto: until the"
        " ranking is stable",
    )
    parser.add_argument(
        "--explain",
        choices=("probability", "energy"),
        help="what banzhaf and shapley attribute: the class's probability (default) or the energy",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        metavar="N",
        help="noisy copies of an image for smoothgrad-cam++ (default: 4)",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain, by index, name or WordNet id (default: each image's top class)",
    )
    parser.add_argument(
        "--top",
        type=positive,
        default=5,
        metavar="N",
        help="classes in predictions.json (default: %(default)s)",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--scale",
        choices=("paper", "unit"),
        default="paper",
        help="contrast of maps of a layer: 2^(z/2) as in the SOFA paper (default), or the values as"
        " they are; maps of single pixels are drawn as they are",
    )
    pictures.add_argument(
        "--colours",
        default="inferno",
        metavar="NAME",
        help="a colour map of matplotlib (default: %(default)s)",
    )
    pictures.add_argument(
        "--alpha",
        type=fraction,
        default=0.5,
        metavar="A",
        help="share of the colours in an overlay (default: %(default)s)",
    )
    pictures.add_argument(
        "--grid",
        type=positive,
        default=8,
        metavar="N",
        help="images in grid.png, the first ones (default: %(default)s)",
    )
    add_model_arguments(parser)
    add_output_argument(parser, "runs/attribute")


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.attribute import attribute, check_pictures

    check_pictures(args.colours, args.alpha, args.grid)
    result = attribute(
        model_from(args),
        args.images,
        args.methods,
        target=args.target,
        layer=args.layer,
        coalitions=args.coalitions,
        explain=args.explain,
        samples=args.samples,
        scale=args.scale,
        top=args.top,
        batch_size=args.batch_size,
        seed=args.seed,
        store=args.output / "features",
        progress=progress_bar,
    )
    print(result)
    result.save(args.output, colours=args.colours, alpha=args.alpha, grid=args.grid)
    print(f"written to {args.output}: maps, overlays, grid, predictions and manifest")
