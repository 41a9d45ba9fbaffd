"""The one exception for wrong input, and how its single line is worded."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong input from the user: shown as one line, without a traceback, exit code 2."""

    def __init__(self, argument: str, got: object, wanted: str, remedy: str = ""):
        line = f"{argument}: got {got}, wanted {wanted}"
        super().__init__(f"{line}. {remedy}" if remedy else line)


def choose(argument: str, name: str, known: Iterable[str]) -> str:
    """Returns `name` when it is known.

    Raises:
      UsageError: naming the closest known names, or all of them when none is close.
    """
    names = sorted(known)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else ""
    raise UsageError(argument, repr(name), f"one of {', '.join(names)}", remedy)
