"""The console command `jaxood`: one module a sub-command, imported only when it is called.

A module turns options into one call of the library, and saves what it returns. The library's
errors name parameters; here they are given the spelling of the options.
"""

import argparse
import contextlib
import importlib
import sys
from typing import NoReturn

from jaxood.cli.ending import INTERRUPTED, end_with, outcome
from jaxood.errors import UsageError, choose
from jaxood.files import exclusive

COMMANDS = {
    "evaluate": "tell in-distribution from out-of-distribution data, and report how well",
    "study": "evaluate several models, suites and seeds, and make one table of all",
    "report": "join the results of evaluations into tables for a paper",
    "attribute": "draw which places of an image a decision rests on",
    "faithfulness": "measure how faithful such maps are, by many measures at once",
    "road": "the same by one measure, ROAD, with its curves and pictures",
    "fit": "make a detector file from a model and in-distribution images",
    "detect": "say for each image whether it is out of distribution",
    "contours": "draw what scores say of every point of a plane, for two moons of data",
    "convert": "turn a PyTorch checkpoint into a weights file",
    "models": "list the architectures and the weights that can be converted",
    "suites": "list the suites of data, and look for their images",
    "methods": "list what methods are composed of, and the attributions",
}

RESUMED = frozenset(
    {"evaluate", "study", "attribute", "faithfulness", "road"}
)  # their --output keeps what was computed


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line and exit code 2, like all other wrong input."""

    def error(self, message):
        raise UsageError("arguments", message, "what --help lists", f"See: {self.prog} --help")


def build_parser(command: str, prog: str) -> argparse.ArgumentParser:
    """The parser of one sub-command: its module's docstring, its `add_arguments`."""
    module = importlib.import_module(f"jaxood.cli.{command}")
    parser = Parser(
        prog=prog,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser


def as_option(argument: str, parser: argparse.ArgumentParser) -> str:
    """A parameter of the library as this command spells it: "train" -> "--train-dir"."""
    for action in parser._actions:
        if action.option_strings and argument.rstrip("s") == action.dest.rstrip("s"):
            return action.option_strings[-1]
    return argument


def main(command: str, arguments: list[str], prog: str | None = None) -> int:
    """Runs one sub-command; returns its exit code.

    0; 2 for wrong input; 1 when the machine fails, as a full disk does; 130 when it was
    interrupted. Whatever it was is one line on the error output.
    """
    prog, parser = prog or f"jaxood {command}", None
    try:
        parser = build_parser(command, prog)
        args = parser.parse_args(arguments)
        with exclusive(args.output) if command in RESUMED else contextlib.nullcontext():
            return args.run(args) or 0
    except BaseException as error:
        if isinstance(error, UsageError) and parser is not None:
            error.argument = as_option(error.argument, parser)
        told = outcome(error)
        if told is None:
            raise
        code, line = told
        if line:
            print(f"{prog}: {line}", file=sys.stderr)
        return code


def leave(command: str, arguments: list[str], prog: str | None = None) -> NoReturn:
    """Runs one sub-command, and ends the process with its exit code."""
    kept = "; the same command goes on where it stopped" if command in RESUMED else ""
    name = prog or f"jaxood {command}"
    end_with(lambda: main(command, arguments, prog), name, INTERRUPTED + kept)


def entry() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from jaxood import __version__

        print(f"jaxood {__version__}")
        sys.exit(0)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: jaxood COMMAND [options]\n       jaxood --version\n\ncommands:")
        for name, text in COMMANDS.items():
            print(f"  {name:<12} {text}")
        print("\njaxood COMMAND --help tells the options of one.")
        sys.exit(0 if arguments else 2)
    try:
        command = choose("COMMAND", arguments[0], COMMANDS)
    except UsageError as error:
        sys.exit(print(f"jaxood: {error}", file=sys.stderr) or 2)
    leave(command, arguments[1:])
