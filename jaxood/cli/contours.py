"""Draws what scores say of every point of a plane in which the data are two moons.

Without arguments: the classifier's energy, the similarity to the nearest training features, and
their product (NNGuide), each by itself and side by side. Any method that needs only features and
logits can be drawn; the white line encloses what it takes as in distribution at a TPR of 95 %.

  jaxood contours
  jaxood contours --method msp mahalanobis react+energy
"""

import argparse

from jaxood.cli.options import (
    add,
    add_figures_argument,
    add_output_argument,
    add_seed_argument,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = ["energy", "knn", "nnguide"]
    text = "composed with + (default: energy knn nnguide)"
    add(parser, "--method", "NAME", text, nargs="+", default=default)
    add_seed_argument(parser)
    add_output_argument(parser, "runs/contours")
    add_figures_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.flows.contours import contours

    result = contours(args.method, seed=args.seed)
    result.save(args.output, figures=args.figures)
    print(result)
    print(f"written to {args.output}: a picture a method, and all side by side")
