"""List the suites: named sets of data for `jaxood evaluate --suite NAME --data-root DIR`.

  jaxood suites                                          what there is
  jaxood suites openood-imagenet                         its sets, where each lies, how many images
  jaxood suites check openood-imagenet --root DIR        what is missing under DIR

NAME may be a TOML table of your own, or package.module:name. `check` ends with 0 when every set is
whole, else with 2.
"""

import argparse
from pathlib import Path

from jaxood.cli.options import add
from jaxood.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "of a suite; `check NAME` looks for its images"
    parser.add_argument("name", nargs="*", metavar="[check] NAME", help=text)
    add(parser, "--root", "DIR", "where the images of a suite lie, for `check`", type=Path)


def run(args: argparse.Namespace) -> int:
    from jaxood.data.suite_check import check_suite, describe_suite
    from jaxood.flows.listings import list_suites

    match args.name:
        case ["check", name]:
            found = check_suite(name, args.root)
            print(found)
            return 0 if found.complete else 2
        case _ if args.root is not None:
            raise UsageError("root", args.root, "it with `check NAME` only")
        case []:
            entries = list_suites()
            width = max(len(entry.name) for entry in entries)
            for entry in entries:
                print(f"{entry.name:<{width}}  {entry.summary}")
        case [name] if name != "check":
            print(describe_suite(name))
        case words:
            raise UsageError("name", " ".join(words), "nothing, NAME, or check NAME")
    return 0
