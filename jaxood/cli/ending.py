"""How a command ends: what goes wrong is one line and an exit code, and nothing is waited for."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from jaxood.errors import UsageError
from jaxood.files import printable, remove_partials

INTERRUPTED = "interrupted"


def outcome(error: BaseException) -> tuple[int, str] | None:
    """The exit code that belongs to an error, and the line; None for a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT, INTERRUPTED
    if isinstance(error, UsageError):
        return 2, printable(str(error))
    if isinstance(error, BrokenPipeError):  # `jaxood detect ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ""
    if isinstance(error, OSError):
        file = error.filename2 or error.filename  # what was meant, not what is beside it
        file = f": {file}" if file else ""
        return 1, printable(f"{error.strerror or error}{file}")
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in first:
        told = f" ({first})" if first else ""
        return 1, f"not enough memory{told}; a smaller --batch-size needs less"
    return None


def end_with(run: Callable[[], int], prog: str, interrupted: str = INTERRUPTED) -> NoReturn:
    """Ends the process with the exit code that `run` returns, or as SIGINT or SIGTERM ask for.

    At once: threads that still read images are not waited for, nor do they crash an interpreter
    that is going down. Signals that are ignored, as `nohup` has it, stay so.

    Args:
      interrupted: what is said when a signal came.
    """

    def stop(number: int, frame: object) -> NoReturn:
        """Unwinding would free what threads still work on: files are whole or absent as it is."""
        remove_partials()
        os.write(2, f"\n{prog}: {interrupted}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name
    code = 1
    try:
        code = run()
        sys.stdout.flush()
    except SystemExit as done:  # --help
        code = int(done.code or 0)
        sys.stdout.flush()
    except OSError as error:  # of the output
        told = outcome(error)
        if told is not None:
            code, line = told
            print(f"{prog}: {line}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    os._exit(code)
