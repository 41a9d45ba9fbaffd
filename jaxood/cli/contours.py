"""Draws what scores say of every point of a plane in which the data are two moons.

Without arguments: the classifier's energy, the similarity to the nearest training features, and
their product (NNGuide), each by itself and side by side. Any method that needs only features and
logits can be drawn; the white line encloses what it takes as in distribution at a TPR of 95 %.

  plot_contours.py
  plot_contours.py --method msp mahalanobis react+energy
"""

import argparse

from jaxood.cli.options import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        nargs="+",
        default=["energy", "knn", "nnguide"],
        metavar="NAME",
        help="composed with + (default: energy knn nnguide)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of data and network (default: 0)"
    )
    add_output_argument(parser, "runs/contours")


def run(args: argparse.Namespace) -> None:
    from jaxood.evaluation.contours import draw_contours

    for path in draw_contours(args.output, args.method, args.seed):
        print(f"written to {path}")
