"""Measures how faithful attribution maps are: removes the pixels they call relevant, and looks
what becomes of the class (ROAD, Rong et al. 2022).

MoRF removes the most relevant pixels first: a faithful map makes the probability of the class fall
fast, a small area under the curve is good. LeRF removes the least relevant first: a large area is
good. Random maps always stand beside the methods, so that a reader sees what faithful means.

  jaxood road photos/ --weights mobilenet_v2.safetensors --method banzhaf score-cam
  jaxood road photos/ --weights mobilenet_v2.safetensors --maps mine=maps.npz --steps 20

Maps from elsewhere: an NPZ file with `ids`, an image name each, and an array [n, h, w] under the
NAME that --maps gives it (`jaxood attribute` writes such files).

Writes curves.csv, areas.csv, curves.json, manifest.json, road.png and strip.png. curves.jsonl holds
every image as it comes; the same command goes on from it.
"""

import argparse

from jaxood.cli.options import (
    add_image_arguments,
    add_model_arguments,
    add_output_argument,
    model_from,
    positive,
    progress_bar,
)
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--method",
        dest="methods",
        nargs="+",
        metavar="NAME",
        help="attributions of this package (default: banzhaf, unless --maps is given)",
    )
    maps.add_argument(
        "--maps",
        action="append",
        default=[],
        metavar="NAME=FILE.npz",
        help="maps from elsewhere; may be repeated",
    )
    maps.add_argument(
        "--random-maps",
        type=positive,
        default=3,
        metavar="N",
        help="random maps an image, whose mean is the baseline (default: %(default)s)",
    )
    maps.add_argument(
        "--scale",
        choices=("paper", "unit"),
        default="paper",
        help="contrast of a map before it is enlarged: 2^(z/2), or as it is (default: paper)",
    )
    maps.add_argument(
        "--target",
        metavar="CLASS",
        help="class to follow, by index, name or WordNet id (default: each image's top class)",
    )
    removal = parser.add_argument_group("removal")
    removal.add_argument(
        "--steps",
        type=positive,
        default=50,
        metavar="N",
        help="fractions 0, 1/N ... (N-1)/N of the pixels (default: %(default)s)",
    )
    removal.add_argument(
        "--thresholds",
        dest="fractions",
        nargs="+",
        type=float,
        metavar="X",
        help="these fractions instead, from 0 to less than 1",
    )
    removal.add_argument(
        "--convention",
        default="exact",
        metavar="NAME",
        help="exact: so many pixels; notebook: all at or above a percentile (default: exact)",
    )
    removal.add_argument(
        "--imputation",
        default="linear",
        metavar="NAME",
        help="linear, mean, zero or blur (default: linear)",
    )
    removal.add_argument(
        "--noise",
        type=float,
        default=0.01,
        metavar="S",
        help="standard deviation of what is added to removed pixels (default: %(default)s)",
    )
    removal.add_argument(
        "--before-normalisation",
        action="store_true",
        help="impute values in [0, 1], as ROAD's authors do, not the normalised image",
    )
    parser.add_argument(
        "--strip",
        nargs="+",
        type=float,
        metavar="X",
        help="fractions shown in strip.png (default: six of those measured)",
    )
    add_model_arguments(parser)
    add_output_argument(parser, "runs/road")


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.road import road

    result = road(
        model_from(args),
        args.images,
        args.methods,
        maps=_named(args.maps),
        random_maps=args.random_maps,
        target=args.target,
        scale=args.scale,
        steps=args.steps,
        fractions=args.fractions,
        strip=args.strip,
        convention=args.convention,
        imputation=args.imputation,
        noise=args.noise,
        before_normalisation=args.before_normalisation,
        batch_size=args.batch_size,
        seed=args.seed,
        store=args.output,
        progress=progress_bar("road", " perturbed images"),
    )
    print(result)
    result.save(args.output)
    print(f"written to {args.output}: curves, areas, manifest and pictures")


def _named(maps: list[str]) -> dict[str, str]:
    """Files by name, from "NAME=FILE"."""
    found: dict[str, str] = {}
    for text in maps:
        name, equals, file = text.partition("=")
        if not (name and equals and file) or name in found:
            raise UsageError("maps", text, "NAME=FILE.npz, a name once")
        found[name] = file
    return found
