"""Measures how faithful attribution maps are: removes the pixels they call relevant, and looks
what becomes of the class (ROAD, Rong et al. 2022).

MoRF removes the most relevant pixels first: a faithful map makes the probability of the class fall
fast, a small area under the curve is good. LeRF removes the least relevant first: a large area is
good. Random maps always stand beside the methods, so that a reader sees what faithful means.

  jaxood road photos/ --weights mobilenet_v2.safetensors --method banzhaf score-cam
  jaxood road photos/ --weights mobilenet_v2.safetensors --maps mine=maps.npz --steps 20

Maps from elsewhere: an NPZ file with `ids`, an image name each, and an array [n, h, w] under the
NAME that --maps gives it (`jaxood attribute` writes such files).

Writes curves.csv, areas.csv, curves.json, manifest.json, road.png and strip.png.
measured.jsonl holds every image as it comes; the same command goes on from it.
"""

import argparse

from jaxood.cli.options import (
    add,
    add_figures_argument,
    add_image_arguments,
    add_map_arguments,
    add_model_arguments,
    add_output_argument,
    model_from,
    named_maps,
)
from jaxood.cli.values import number, positive, progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    maps = add_map_arguments(parser)
    text = "contrast of a map before it is enlarged: paper, 2^(z/2), or unit, as it is"
    add(maps, "--scale", "NAME", text, choices=("paper", "unit"), default="paper")
    removal = parser.add_argument_group("removal")
    text = "fractions 0, 1/N ... (N-1)/N of the pixels"
    add(removal, "--steps", "N", text, type=positive, default=50)
    text = "these fractions instead, from 0 to less than 1"
    add(removal, "--thresholds", "X", text, dest="fractions", nargs="+", type=number)
    text = "exact: so many pixels; notebook: all at or above a percentile"
    add(removal, "--convention", "NAME", text, default="exact")
    add(removal, "--imputation", "NAME", "linear, mean, zero or blur", default="linear")
    text = "standard deviation of what is added to removed pixels"
    add(removal, "--noise", "S", text, type=number, default=0.01)
    text = "impute values in [0, 1], as ROAD's authors do, not the normalised image"
    removal.add_argument("--before-normalisation", action="store_true", help=text)
    text = "fractions shown in strip.png (default: six of those measured)"
    add(parser, "--strip", "X", text, nargs="+", type=number)
    add_model_arguments(parser)
    add_output_argument(parser, "runs/road")
    add_figures_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.road import road
    from jaxood.processes import is_first

    result = road(
        model_from(args),
        args.images,
        args.method,
        maps=named_maps(args.maps),
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
        progress=None if args.quiet else progress_bar("road", " perturbed images"),
    )
    if is_first():
        # First: whoever reads the output may have gone.
        result.save(args.output, figures=args.figures)
    print(result)
    if not args.quiet:
        print(f"written to {args.output}: curves, areas, manifest and pictures")
