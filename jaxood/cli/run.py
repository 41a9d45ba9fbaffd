"""Runs the command that a file holds, such as the command.toml beside every result.

  jaxood run runs/evaluate/command.toml
  jaxood run runs/evaluate/command.toml --output runs/again --seed 1

Options after the file take the place of those in it.
"""

import argparse
from pathlib import Path

from jaxood.cli.config import arguments_of, read_command
from jaxood.errors import choose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="TOML: a command and its options")
    text = "of the command, instead of those in the file"
    parser.add_argument("options", metavar="OPTION", nargs=argparse.REMAINDER, help=text)


def run(args: argparse.Namespace) -> int:
    from jaxood.cli import COMMANDS, build_parser, main

    command, options = read_command(args.file)
    choose("command", command, [name for name in COMMANDS if name != "run"])
    parser = build_parser(command, f"jaxood {command}")
    return main(command, [*arguments_of(options, parser), *args.options])
