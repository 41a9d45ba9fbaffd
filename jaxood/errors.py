"""The one exception for wrong input, and how its single line is worded."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong input from the user: one line; on the command line no traceback, and exit code 2.

    Attributes:
      argument: the parameter that is wrong, as the function called names it.
    """

    def __init__(self, argument: str, got: object, wanted: str, remedy: str = ""):
        self.argument, self.got, self.wanted, self.remedy = argument, got, wanted, remedy
        super().__init__(argument, got, wanted, remedy)

    def __str__(self) -> str:
        line = f"{self.argument}: got {self.got}, wanted {self.wanted}"
        return f"{line}. {self.remedy}" if self.remedy else line


def require(holds: object, argument: str, got: object, wanted: str, remedy: str = "") -> None:
    """Raises UsageError unless `holds`."""
    if not holds:
        raise UsageError(argument, got, wanted, remedy)


def require_seed(argument: str, seed: object) -> None:
    """Raises UsageError unless `seed` is one."""
    holds = isinstance(seed, int) and 0 <= seed < 2**32
    require(holds, argument, seed, "a whole number, 0 to 2**32 - 1")


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
