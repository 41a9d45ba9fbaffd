"""Draws which places of an image a model's decision rests on.

Without --method: the Banzhaf values of SOFA. Several methods at once share one pass; `jaxood
methods` lists them. Parameters may stand in brackets: "score-cam[layer=layer3.5]".

  jaxood attribute photos/ --weights mobilenet_v2.safetensors
  jaxood attribute cat.jpg --weights resnet50.safetensors --method banzhaf grad-cam score-cam
  jaxood attribute cat.jpg --weights resnet50.safetensors --method layercam --layer layer3.5

Writes maps.npz, overlays/ (a PNG an image and method), strips/ (an image beside its maps),
grid.png, predictions.json, report.html and manifest.json.
"""

import argparse

from jaxood.cli.options import (
    add,
    add_figures_argument,
    add_image_arguments,
    add_model_arguments,
    add_output_argument,
    model_from,
)
from jaxood.cli.values import fraction, positive, positive_or_auto, progress_bar, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    text = "one or more, such as banzhaf, shapley, grad-cam, score-cam (default: banzhaf)"
    add(parser, "--method", "NAME", text, nargs="+", default=["banzhaf"])
    text = "stage for the activation maps (default: the model's own choice)"
    add(parser, "--layer", "STAGE", text)
    text = "random subsets of positions for banzhaf and shapley (default: 240); auto: until the"
    add(parser, "--coalitions", "N", f"{text} ranking is stable", type=positive_or_auto)
    text = "what banzhaf and shapley attribute: the class's probability (default) or energy"
    add(parser, "--explain", "VALUE", text, choices=("probability", "energy"))
    text = "noisy copies for smoothgrad-cam++ (default: 4), smoothgrad (50), ss-cam, is-cam (10)"
    add(parser, "--samples", "N", text, type=positive)
    text = "class to explain, by index, name or WordNet id (default: each image's top class)"
    add(parser, "--target", "CLASS", text)
    add(parser, "--top", "N", "classes in predictions.json", type=positive, default=5)
    pictures = parser.add_argument_group("pictures")
    text = "contrast of maps of a layer: paper, 2^(z/2) as in the SOFA paper, or unit, the values"
    text += " as they are; maps of single pixels are drawn as they are"
    add(pictures, "--scale", "NAME", text, choices=("paper", "unit"), default="paper")
    add(pictures, "--colours", "NAME", "a colour map of matplotlib", default="inferno")
    text = "share of the colours in an overlay"
    add(pictures, "--alpha", "A", text, type=fraction, default=0.5)
    add(pictures, "--grid", "N", "images in grid.png, the first ones", type=positive, default=8)
    text = "images with a strip of their own beside all their maps, the first ones"
    add(pictures, "--strips", "N", text, type=whole, default=50)
    text = "pictures of what the model saw alone, not of whole images with a frame around it"
    pictures.add_argument("--cropped", action="store_true", help=text)
    add_model_arguments(parser)
    add_output_argument(parser, "runs/attribute")
    add_figures_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.attribute import attribute, check_pictures
    from jaxood.processes import is_first

    check_pictures(args.colours, args.alpha, args.grid, args.strips)
    result = attribute(
        model_from(args),
        args.images,
        args.method,
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
        progress=None if args.quiet else progress_bar,
    )
    if is_first():
        result.save(
            args.output,
            colours=args.colours,
            alpha=args.alpha,
            grid=args.grid,
            strips=args.strips,
            cropped=args.cropped,
            figures=args.figures,
        )
    print(result)
    if not args.quiet:
        print(f"written to {args.output}: maps, predictions, report.html and pictures")
