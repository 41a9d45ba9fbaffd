"""Measures: one module of `benchmarks` a sub-command; ratios in one run, answer checked first."""

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import benchmarks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for info in pkgutil.iter_modules(benchmarks.__path__):
        module = importlib.import_module(f"benchmarks.{info.name}")
        if not hasattr(module, "add_arguments"):
            continue
        name = info.name.replace("_", "-")
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--json", type=Path, help="also write the figures to this file")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    figures = args.run(args) | benchmarks.environment()
    print(json.dumps(figures, indent=2))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
