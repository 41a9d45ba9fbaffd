"""Measures how faithful attribution maps are, by all the measures that the field uses: one table.

Perturbation (insertion, deletion, pixel flipping, ROAD...), correlations over random subsets
(sensitivity-n...), and others; `jaxood methods` lists them, each with its paper. Random maps always
stand beside the methods, so that a reader sees what faithful means.

  jaxood faithfulness photos/ --weights mobilenet_v2.safetensors --method banzhaf score-cam
  jaxood faithfulness photos/ --weights mobilenet_v2.safetensors --measure deletion road[steps=20]
  jaxood faithfulness photos/ --weights mobilenet_v2.safetensors --maps mine=maps.npz

  jaxood faithfulness --suite photos --method banzhaf grad-cam

With --suite, SFP is done by the same maps: does a map that is more faithful tell OOD images better?
Maps from elsewhere: an NPZ file with `ids`, an image name each, and an array [n, h, w] under the
NAME that --maps gives it (`jaxood attribute` writes such files).

Writes values.csv (a row an image, method and measure), table.csv, table.md, curves.csv,
faithfulness.json, faithfulness.png, curves.png, report.html to look at (the maps of the first
images under a slider) and manifest.json. measured.jsonl holds every image as it comes; the same
command goes on from it.
"""

import argparse

from jaxood.cli.options import (
    add,
    add_figures_argument,
    add_map_arguments,
    add_model_arguments,
    add_output_argument,
    model_from,
    named_maps,
)
from jaxood.cli.values import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "image files, folders of them, or .txt lists (default: the ID images of --suite)"
    add(parser, "images", "IMAGE", text, nargs="*")
    add_map_arguments(parser)
    text = "one or more, such as insertion[baseline=mean] (default: all that compute no map again)"
    add(parser, "--measure", "NAME", text, nargs="+")
    text = "for measures of localisation: a folder of .xml boxes or .png masks, or COCO's .json"
    add(parser, "--objects", "PATH", text)
    text = "also tell what SFP by each map gains in telling the OOD images of this suite"
    add(parser, "--suite", "NAME", text)
    add(parser, "--data-root", "DIR", "where the images of that suite lie", dest="root")
    text = "also tell how much each measure moves with seed, baseline and resolution: several times"
    parser.add_argument("--stability", action="store_true", help=f"{text} the work")
    add_model_arguments(parser)
    add_output_argument(parser, "runs/faithfulness")
    add_figures_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.data.suites import suite
    from jaxood.flows.faithfulness import faithfulness
    from jaxood.processes import is_first

    chosen = suite(args.suite, args.root) if args.suite else None
    result = faithfulness(
        model_from(args, chosen.name if chosen else "digits"),
        args.images or None,
        args.method,
        measures=args.measure,
        maps=named_maps(args.maps),
        random_maps=args.random_maps,
        objects=args.objects,
        suite=chosen,
        stability=args.stability,
        target=args.target,
        batch_size=args.batch_size,
        seed=args.seed,
        store=args.output,
        progress=None if args.quiet else progress_bar("faithfulness", " images seen by the model"),
        suite_progress=None if args.quiet else progress_bar,
    )
    if is_first():
        result.save(args.output, figures=args.figures)
    print(result)
    if not args.quiet:
        print(f"written to {args.output}: report.html, values, table, curves, pictures")
