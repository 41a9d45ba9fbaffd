"""The console command `jaxood`: one module a sub-command, imported only when it is called.

A module turns options into one call of the library, and saves what it returns. The library's
errors name parameters; here they are given the spelling of the options.
"""

import argparse
import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from jaxood.cli.config import write_command
from jaxood.cli.ending import INTERRUPTED, end_with, outcome
from jaxood.cli.options import sharing_work
from jaxood.compiled import kept_compiled
from jaxood.errors import UsageError, choose
from jaxood.files import COMMAND_FILE, cache_dir, exclusive, printable

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
    "head": "give a weights file a head, fitted on images or made of texts",
    "models": "list the architectures and the weights that can be converted",
    "suites": "list the suites of data, and look for their images",
    "run": "do again what a command.toml tells, as it lies beside every result",
    "completion": "print a script by which a shell completes commands and options",
    "methods": "list what methods are composed of, and the attributions",
}

# Their --output keeps what was computed.
RESUMED = frozenset({"evaluate", "study", "attribute", "faithfulness", "road"})

# What argparse says, and in our words: the argument, what came, what was wanted.
WORDINGS = (
    (r"argument ([^:]+): got (.*), wanted (.*)", r"\1", r"\2", r"\3"),
    (r"argument ([^:]+): invalid choice: (.*) \(choose from (.*)\)", r"\1", r"\2", r"one of \3"),
    (r"argument ([^:]+): expected (.*) arguments?", r"\1", "nothing", r"\2 value"),
    (r"argument ([^:]+): not allowed with argument (.*)", r"\1", r"\2 beside it", "one of them"),
    (r"argument ([^:]+): ignored explicit argument (.*)", r"\1", r"\2", "nothing, it is a switch"),
    (r"unrecognized arguments: (.*)", "arguments", r"\1", "what --help lists"),
    (r"the following arguments are required: (.*)", r"\1", "nothing", "a value"),
)


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line and exit code 2, like all other wrong input."""

    def error(self, message):
        see = f"See: {self.prog} --help"
        for pattern, *parts in WORDINGS:
            found = re.fullmatch(pattern, message, re.S)
            if found:
                argument, got, wanted = (found.expand(part) for part in parts)
                wanted = wanted.replace("'", "")  # around choices, before Python 3.12
                raise UsageError(argument, got, wanted, f"{self._alike(got)}{see}")
        raise UsageError("arguments", message, "what --help lists", see)

    def _alike(self, text: str) -> str:
        """What an unknown option may have meant."""
        names = [name for action in self._actions for name in action.option_strings]
        close = difflib.get_close_matches(text.split("=")[0].split(" ")[0], names, n=1, cutoff=0.7)
        return f"Did you mean {close[0]}? " if text.startswith("-") and close else ""


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
        names = [action.dest, *(option.lstrip("-") for option in action.option_strings)]
        if action.option_strings and argument.rstrip("s") in [name.rstrip("s") for name in names]:
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
        with contextlib.ExitStack() as stack:
            stack.enter_context(_spelled(parser))
            stack.enter_context(sharing_work(args))
            stack.enter_context(_spelled(parser))  # what other processes are told, too
            if command in RESUMED:
                stack.enter_context(exclusive(_own_folder(args)))
            if "cache" in args:  # it runs a model
                stack.enter_context(kept_compiled(cache_dir(args.cache) / "compiled"))
            code = args.run(args) or 0
            if command in RESUMED and _own_folder(args) == args.output:
                write_command(args.output / COMMAND_FILE, command, parser, args)
            return code
    except BaseException as error:
        told = outcome(error)
        if told is None:
            raise
        code, line = told
        if line:
            print(f"{prog}: {line}", file=sys.stderr)
        return code


@contextlib.contextmanager
def _spelled(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Lets errors speak of options."""
    try:
        yield
    except UsageError as error:
        error.argument = as_option(error.argument, parser)
        raise


def _own_folder(args: argparse.Namespace) -> Path:
    """The folder that this process alone writes to: --output, or one there beside others."""
    if not getattr(args, "distributed", False):
        return args.output
    from jaxood.processes import is_first, own_name

    return args.output if is_first() else args.output / own_name()


def leave(command: str, arguments: list[str], prog: str | None = None) -> NoReturn:
    """Runs one sub-command, and ends the process with its exit code."""
    kept = "; the same command goes on where it stopped" if command in RESUMED else ""
    name = prog or f"jaxood {command}"
    end_with(lambda: main(command, arguments, prog), name, INTERRUPTED + kept)


def entry() -> NoReturn:
    """The console script."""
    command, *arguments = sys.argv[1:] or [""]
    if command in COMMANDS:
        leave(command, arguments)
    end_with(lambda: _front(command), "jaxood")


def _front(text: str) -> int:
    """What the command alone says, or says to a sub-command that there is not."""
    if text == "--version":
        from jaxood import __version__

        print(f"jaxood {__version__}")
        return 0
    if text in ("", "-h", "--help"):
        print("usage: jaxood COMMAND [options]\n       jaxood --version\n\ncommands:")
        for name, told in COMMANDS.items():
            print(f"  {name:<12} {told}")
        print("\njaxood COMMAND --help tells the options of one.")
        return 0 if text else 2
    try:
        choose("COMMAND", text, COMMANDS)
    except UsageError as error:
        print(printable(f"jaxood: {error}"), file=sys.stderr)
    return 2
