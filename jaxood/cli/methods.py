"""List what methods are composed of: views, transforms and scores; attributions; measures.

A method is a score, or a view and transforms before it: `sfp+react+knn`. With a name: what it
needs, its parameters with their defaults, and its paper.
"""

import argparse

from jaxood.cli.options import add_json_argument
from jaxood.cli.values import as_json

TITLES = {
    "view": "views (first in a method; computed in the one pass over the images)",
    "transform": "transforms (change the features before they are scored)",
    "score": "scores (last in a method)",
    "attribution": "attributions (for `attribute`, `faithfulness`, `road` and sfp[by=NAME])",
    "measure": "measures (for `faithfulness`)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="only this one")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    from jaxood.errors import choose
    from jaxood.flows.listings import list_attributions, list_detectors, list_measures

    entries = [*list_detectors(), *list_attributions(), *list_measures()]
    if args.name:
        choose("name", args.name, [entry.name for entry in entries])
        entries = [entry for entry in entries if entry.name == args.name]
    if args.json:
        print(as_json(entries))
    elif args.name:
        for entry in entries:
            print(f"{entry.name} ({entry.kind}): {entry.summary}\n  {entry.paper}")
            print(f"  needs: {', '.join(entry.needs) or 'logits'}")
            for key, value in entry.parameters:
                print(f"  {key} = {value}")
    else:
        width = max(len(entry.name) for entry in entries)
        for kind, title in TITLES.items():
            print(f"{title}:")
            for entry in (entry for entry in entries if entry.kind == kind):
                told = ", ".join(f"{key}={value}" for key, value in entry.parameters)
                print(f"  {entry.name:<{width}}  {entry.summary}")
                if told:
                    print(f"  {'':<{width}}    {told}")
