"""A command with its options as a TOML file: written beside each result, and run from there."""

import argparse
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxood.cli.options import DISTRIBUTED
from jaxood.errors import UsageError, choose
from jaxood.files import printable, write_whole

HEAD = "# jaxood run FILE does this again; options after FILE take the place of those here.\n"


def write_command(file: Path, command: str, parser: argparse.ArgumentParser, args) -> None:
    """Writes the command with all of its options, defaults too, as those may change.

    But for those that say which of several processes this is: the result is the same without.
    """
    lines = [HEAD, f"command = {_toml(command)}\n", "\n[options]\n"]
    lines += [f"{name} = {_toml(value)}\n" for name, value in _given(parser, args).items()]
    write_whole(file, "".join(lines).encode("utf-8", "backslashreplace"))


def read_command(file: Path) -> tuple[str, Mapping[str, Any]]:
    """The command and its options.

    Raises:
      UsageError: for a file that is missing, no TOML, or of another form.
    """
    try:
        found = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        got = f"{printable(file)} ({error.strerror})"
        raise UsageError("file", got, "a command file to read") from None
    except (ValueError, RecursionError) as error:
        got = f"{printable(file)} ({str(error).partition(chr(10))[0]})"
        raise UsageError("file", got, "TOML, as a run leaves it in command.toml") from None
    command, options = found.pop("command", None), found.pop("options", {})
    if found or not isinstance(command, str) or not isinstance(options, dict):
        got = printable(f"{file} with {', '.join(found) or 'other values'}")
        raise UsageError("file", got, 'command = "NAME" and a table [options]')
    return command, options


def arguments_of(options: Mapping[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """Options as one would type them.

    Raises:
      UsageError: for one that the command does not have, or a value of another kind.
    """
    actions = {_name(action): action for action in parser._actions if action.dest != "help"}
    arguments: list[str] = []
    for name, value in options.items():
        action = actions[choose("options", name, actions)]
        flag = action.option_strings[-1:]
        if action.nargs == 0:
            _require(isinstance(value, bool), name, value, "true or false")
            arguments += flag if value else []
            continue
        values = value if isinstance(value, list) else [value]
        several = isinstance(action, argparse._AppendAction) or action.nargs not in (None, "?")
        fits = all(isinstance(one, str | int | float) for one in values)
        wanted = "texts or numbers" if several else "one text or number"
        _require(fits and (several or len(values) == 1), name, value, wanted)
        if isinstance(action, argparse._AppendAction) or not several:
            arguments += [f"{flag[0]}={one}" if flag else str(one) for one in values]
        else:
            arguments += [*flag, *map(str, values)]
    return arguments


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError("options", f"{name} = {value!r}"[:200], wanted)


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1].lstrip("-") if action.option_strings else action.dest


def _given(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    values = {
        _name(action): getattr(args, action.dest)
        for action in parser._actions
        if action.dest != "help" and action.dest not in DISTRIBUTED
    }
    return {name: value for name, value in values.items() if value not in (None, False, [], ())}


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(printable(value), ensure_ascii=False)
